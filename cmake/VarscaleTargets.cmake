# One target a folder. Files that end in _gpu.cpp are compiled with VARSCALE_CUDA, those that end in
# _absent.cpp without it. A library states its layer; linking upwards is refused at configure time.
#
#   varscale_library(scaling LAYER 1 DEPENDS base LINK fmt::fmt)        src/scaling/**.cpp
#   varscale_library(nn LAYER 3 TORCH DEPENDS base)                     with the torch precompiled header
#   varscale_program(var_fit DEPENDS fit records SOURCES var_fit.cpp)    build/<preset>/bin/var_fit
#   varscale_test(scaling DEPENDS scaling)                              tests/scaling/*.cpp -> scaling_test

# Everything that is compiled against libtorch takes exactly these flags, or the shared precompiled
# header is rejected.
function(_varscale_use_torch target)
  target_link_libraries(${target} PUBLIC Libtorch::torch)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)  # -fPIC, never -fPIE, also for programs
  target_compile_options(${target} PRIVATE -fPIC -fopenmp -fpch-preprocess)
  target_link_options(${target} PRIVATE -fopenmp)
  target_precompile_headers(${target} REUSE_FROM varscale_torch_pch)
endfunction()

# What is compiled without torch shares a precompiled header too, and so exactly these flags. The compiler's
# own garbage collection, which would begin at once behind such a header, waits until a job holds 1 GB.
function(_varscale_plain_flags target)
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
  target_compile_options(${target} PRIVATE -fPIC -fpch-preprocess --param=ggc-min-heapsize=1000000
                         ${_undefined_behaviour})
  target_link_libraries(${target} PRIVATE fmt::fmt nlohmann_json::nlohmann_json)
endfunction()

function(_varscale_use_plain target)
  _varscale_plain_flags(${target})
  target_precompile_headers(${target} REUSE_FROM varscale_plain_pch)
endfunction()

# Tests check and do not compute: without optimisation they compile in two thirds of the time. What they
# test keeps its own flags.
function(_varscale_plain_test_flags target)
  _varscale_plain_flags(${target})
  target_compile_options(${target} PRIVATE -O0)
endfunction()

function(_varscale_check_layers name layer)
  foreach(dependency IN LISTS ARGN)
    get_target_property(below varscale_${dependency} VARSCALE_LAYER)
    if(below GREATER layer)
      message(FATAL_ERROR "${name} (layer ${layer}) must not use ${dependency} (layer ${below}): arrows go down")
    endif()
  endforeach()
endfunction()

function(varscale_library name)
  cmake_parse_arguments(arg "TORCH" "LAYER" "DEPENDS;LINK" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  if(NOT VARSCALE_CUDA)
    list(FILTER sources EXCLUDE REGEX "_gpu\\.cpp$")
  else()
    list(FILTER sources EXCLUDE REGEX "_absent\\.cpp$")
  endif()
  _varscale_check_layers(${name} ${arg_LAYER} ${arg_DEPENDS})
  add_library(varscale_${name} STATIC ${sources})
  add_library(varscale::${name} ALIAS varscale_${name})
  set_target_properties(varscale_${name} PROPERTIES VARSCALE_LAYER ${arg_LAYER})
  target_include_directories(varscale_${name} PUBLIC ${CMAKE_SOURCE_DIR}/src)
  target_link_libraries(varscale_${name} PRIVATE varscale_warnings)
  if(arg_TORCH)
    _varscale_use_torch(varscale_${name})
  else()
    _varscale_use_plain(varscale_${name})
  endif()
  foreach(dependency IN LISTS arg_DEPENDS)
    target_link_libraries(varscale_${name} PUBLIC varscale::${dependency})
  endforeach()
  target_link_libraries(varscale_${name} PUBLIC ${arg_LINK})
endfunction()

function(varscale_program name)
  cmake_parse_arguments(arg "TORCH" "" "DEPENDS;LINK;SOURCES" ${ARGN})
  add_executable(${name} ${arg_SOURCES})
  if(arg_TORCH)
    _varscale_use_torch(${name})
  else()
    _varscale_use_plain(${name})
  endif()
  foreach(dependency IN LISTS arg_DEPENDS)
    target_link_libraries(${name} PRIVATE varscale::${dependency})
  endforeach()
  target_link_libraries(${name} PRIVATE varscale_warnings CLI11::CLI11 ${arg_LINK})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
endfunction()

# One program per tests/<name> folder. It finds the fixtures, sources and programs through VARSCALE_FIXTURES,
# VARSCALE_SOURCE and VARSCALE_BIN, and what ENVIRONMENT adds. One CTest entry a program, or with RANKS n ... one
# a number of ranks, run by mpirun; such a program has its own main(). SHARDS n: n entries that share the tests of a long program.
# SOURCES: more files, below tests/. The targets <label>_tests build all programs of a label.
#
# Sanitizer builds start programs with RANKS once, without a launcher: what they cover of ranks are threads.
function(varscale_test name)
  cmake_parse_arguments(arg "TORCH" "TIMEOUT;SHARDS" "DEPENDS;LINK;LABELS;RANKS;SOURCES;ENVIRONMENT" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/${name}/*.cpp)
  list(APPEND sources ${arg_SOURCES})
  add_executable(${name}_test ${sources})
  if(arg_TORCH)
    _varscale_use_torch(${name}_test)
  else()
    _varscale_plain_test_flags(${name}_test)
    target_precompile_headers(${name}_test REUSE_FROM varscale_test_pch)
  endif()
  foreach(dependency IN LISTS arg_DEPENDS)
    target_link_libraries(${name}_test PRIVATE varscale::${dependency})
  endforeach()
  target_include_directories(${name}_test PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${name}_test PRIVATE varscale_warnings GTest::gtest GTest::gmock ${arg_LINK})
  if(NOT arg_RANKS)
    target_link_libraries(${name}_test PRIVATE GTest::gtest_main)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  if(VARSCALE_SANITIZE)
    math(EXPR arg_TIMEOUT "5 * ${arg_TIMEOUT}")
  endif()
  set(environment "VARSCALE_FIXTURES=${CMAKE_SOURCE_DIR}/tests/fixtures;VARSCALE_SOURCE=${CMAKE_SOURCE_DIR};VARSCALE_BIN=${CMAKE_BINARY_DIR}/bin;${arg_ENVIRONMENT};${_sanitizer_environment}")
  if(arg_TORCH)
    list(APPEND arg_LABELS torch)
    list(APPEND environment OMP_NUM_THREADS=1)
  else()
    list(APPEND arg_LABELS fast)
  endif()
  if(arg_RANKS AND NOT VARSCALE_SANITIZE)
    list(APPEND arg_LABELS mpi)
    foreach(ranks IN LISTS arg_RANKS)
      add_test(NAME ${name}_np${ranks}
               COMMAND ${CMAKE_SOURCE_DIR}/launch/mpirun.sh -n ${ranks} $<TARGET_FILE:${name}_test>)
      set_tests_properties(${name}_np${ranks} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
                           ENVIRONMENT "${environment}" PROCESSORS 2)
    endforeach()
  else()
    if(NOT arg_SHARDS)
      set(arg_SHARDS 1)
    endif()
    foreach(shard RANGE 1 ${arg_SHARDS})
      set(entry ${name})
      set(shard_environment)
      if(arg_SHARDS GREATER 1)
        set(entry ${name}_${shard}of${arg_SHARDS})
        math(EXPR index "${shard} - 1")
        set(shard_environment GTEST_TOTAL_SHARDS=${arg_SHARDS} GTEST_SHARD_INDEX=${index})
      endif()
      add_test(NAME ${entry} COMMAND ${name}_test)
      set_tests_properties(${entry} PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
                           ENVIRONMENT "${environment};${shard_environment}")
    endforeach()
  endif()
  foreach(label IN LISTS arg_LABELS)
    if(NOT TARGET ${label}_tests)
      add_custom_target(${label}_tests)
    endif()
    add_dependencies(${label}_tests ${name}_test)
  endforeach()
endfunction()

# A Python script of tests/programs that runs whole programs; it fails with a non-zero exit code. The target
# <name>_test builds what it needs.
#
#   varscale_program_test(restart DEPENDS var_sweep var_data ARGS --kills 10)     tests/programs/restart_test.py
#
# With CONFIGURATIONS NAME it runs under `ctest -C NAME` alone.
function(varscale_program_test name)
  cmake_parse_arguments(arg "" "SCRIPT;TIMEOUT;CONFIGURATIONS" "DEPENDS;LABELS;ARGS" ${ARGN})
  if(NOT arg_SCRIPT)
    set(arg_SCRIPT programs/${name}_test.py)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  set(configurations)
  if(arg_CONFIGURATIONS)
    set(configurations CONFIGURATIONS ${arg_CONFIGURATIONS})
  endif()
  add_custom_target(${name}_test DEPENDS ${arg_DEPENDS})
  add_test(NAME ${name} ${configurations} COMMAND ${CMAKE_SOURCE_DIR}/.deps/venv/bin/python
           ${CMAKE_CURRENT_SOURCE_DIR}/${arg_SCRIPT} ${arg_ARGS})
  set_tests_properties(${name} PROPERTIES LABELS "programs;torch;${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} PROCESSORS 2
                       ENVIRONMENT "VARSCALE_SOURCE=${CMAKE_SOURCE_DIR};VARSCALE_BIN=${CMAKE_BINARY_DIR}/bin")
endfunction()
