# Language level, warnings, linker and compiler cache, the same for every target.

get_cmake_property(_cache_variables CACHE_VARIABLES)
set(_known VARSCALE_TORCH VARSCALE_CUDA VARSCALE_TESTS VARSCALE_SANITIZE VARSCALE_TORCH_DIR)
foreach(_variable IN LISTS _cache_variables)
  if(_variable MATCHES "^VARSCALE_" AND NOT _variable IN_LIST _known)
    message(FATAL_ERROR "unknown option ${_variable}; known options: ${_known}")
  endif()
endforeach()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()
# Invariants use VARSCALE_CHECK, which NDEBUG does not switch off.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

find_program(CCACHE_PROGRAM ccache)
mark_as_advanced(CCACHE_PROGRAM)
if(CCACHE_PROGRAM)
  # pch_defines,time_macros and -fpch-preprocess: what ccache needs to cache with a precompiled header.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
      CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${CCACHE_PROGRAM})
endif()

find_program(MOLD_PROGRAM mold)
mark_as_advanced(MOLD_PROGRAM)
if(MOLD_PROGRAM)
  # norelro: mold 1.10 can begin that segment off a page, and then the loader refuses the program.
  add_link_options(-fuse-ld=mold -Wl,-z,norelro)
endif()

if(VARSCALE_SANITIZE)
  add_compile_options(-fsanitize=${VARSCALE_SANITIZE} -fno-omit-frame-pointer -g1)
  add_link_options(-fsanitize=${VARSCALE_SANITIZE})
endif()

add_library(varscale_warnings INTERFACE)
target_compile_options(varscale_warnings INTERFACE -Wall -Wextra -Werror)
