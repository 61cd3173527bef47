# Language level, warnings and compiler cache, the same for every target.
#
# The linker is the system's. Debian's mold (1.10) is not used: it can begin the RELRO segment off a page, so that
# the program does not load, and without that segment it can link for ever. It saves 0.3 s a program.

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

if(VARSCALE_SANITIZE)
  # -Wmaybe-uninitialized sees the instrumented code and warns of std::optional; release builds keep it.
  add_compile_options(-fsanitize=${VARSCALE_SANITIZE} -fno-omit-frame-pointer -g1 -Wno-maybe-uninitialized)
  add_link_options(-fsanitize=${VARSCALE_SANITIZE})
  if(VARSCALE_SANITIZE STREQUAL "address")
    # Besides, undefined behaviour, in what is compiled without torch.
    set(_undefined_behaviour -fsanitize=undefined -fno-sanitize=vptr -fno-sanitize-recover=undefined)
    add_link_options(-fsanitize=undefined)
  endif()
  # The tests' environment. Nothing is suppressed but what cmake/{races,leaks}.supp list with their reasons.
  set(_sanitizer_environment
      ASAN_OPTIONS=detect_leaks=1
      LSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/cmake/leaks.supp:print_suppressions=0
      TSAN_OPTIONS=suppressions=${CMAKE_SOURCE_DIR}/cmake/races.supp:second_deadlock_stack=1)
endif()

add_library(varscale_warnings INTERFACE)
target_compile_options(varscale_warnings INTERFACE -Wall -Wextra -Werror)
if(CMAKE_UNITY_BUILD)
  # Of a private class (Impl) with members of the file's anonymous namespace: right in a .cpp, which the compiler
  # takes for a header once several are compiled as one.
  target_compile_options(varscale_warnings INTERFACE -Wno-subobject-linkage)
endif()
