# Finds libtorch inside the torch Python wheel and defines Libtorch::torch.
#
# The wheel's own TorchConfig.cmake asks for a CUDA toolkit even where only the CPU part is used; this
# module does not. With VARSCALE_CUDA it adds libtorch_cuda and c10_cuda and the toolkit's headers.
#
# libtorch_cpu comes first on the link line, with --no-as-needed: it exports BLAS and LAPACK symbols
# (MKL), and another BLAS before it would take its own matrix products over and slow them down. The same
# flag keeps libtorch_cuda, of which a program may use no symbol: its kernels register as it is loaded.

set(_torch_places ${VARSCALE_TORCH_DIR})
file(GLOB _torch_in_deps ${CMAKE_SOURCE_DIR}/.deps/venv/lib/python3*/site-packages/torch)
list(APPEND _torch_places ${_torch_in_deps})
if(NOT _torch_places)
  execute_process(
    COMMAND python3 -c "import importlib.util as u; print(u.find_spec('torch').submodule_search_locations[0])"
    OUTPUT_VARIABLE _torch_in_python OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  list(APPEND _torch_places ${_torch_in_python})
endif()

find_path(Libtorch_INCLUDE_DIR ATen/ATen.h HINTS ${_torch_places} PATH_SUFFIXES include NO_DEFAULT_PATH)
find_library(Libtorch_cpu_LIBRARY torch_cpu HINTS ${_torch_places} PATH_SUFFIXES lib NO_DEFAULT_PATH)
find_library(Libtorch_c10_LIBRARY c10 HINTS ${_torch_places} PATH_SUFFIXES lib NO_DEFAULT_PATH)
set(_torch_required Libtorch_cpu_LIBRARY Libtorch_c10_LIBRARY Libtorch_INCLUDE_DIR)
if(VARSCALE_CUDA)
  find_library(Libtorch_cuda_LIBRARY torch_cuda HINTS ${_torch_places} PATH_SUFFIXES lib NO_DEFAULT_PATH)
  find_library(Libtorch_c10_cuda_LIBRARY c10_cuda HINTS ${_torch_places} PATH_SUFFIXES lib NO_DEFAULT_PATH)
  list(APPEND _torch_required Libtorch_cuda_LIBRARY Libtorch_c10_cuda_LIBRARY)
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  Libtorch REQUIRED_VARS ${_torch_required}
  REASON_FAILURE_MESSAGE "run ./launch/setup.sh, or give -DVARSCALE_TORCH_DIR=<site-packages>/torch")

if(Libtorch_FOUND AND NOT TARGET Libtorch::torch)
  get_filename_component(_torch_lib_dir ${Libtorch_cpu_LIBRARY} DIRECTORY)
  # The wheel carries headers of another fmt; the system's, which we link, must be found first.
  get_target_property(_fmt_places fmt::fmt INTERFACE_INCLUDE_DIRECTORIES)
  find_path(_fmt_include_dir fmt/core.h HINTS ${_fmt_places} PATHS /usr/include /usr/local/include NO_DEFAULT_PATH)
  file(MAKE_DIRECTORY ${CMAKE_BINARY_DIR}/system_fmt)
  file(CREATE_LINK ${_fmt_include_dir}/fmt ${CMAKE_BINARY_DIR}/system_fmt/fmt SYMBOLIC)
  add_library(Libtorch::torch INTERFACE IMPORTED)
  target_include_directories(Libtorch::torch SYSTEM INTERFACE
                             ${CMAKE_BINARY_DIR}/system_fmt ${Libtorch_INCLUDE_DIR} ${Libtorch_INCLUDE_DIR}/torch/csrc/api/include)
  target_link_options(Libtorch::torch INTERFACE -Wl,--no-as-needed ${Libtorch_cpu_LIBRARY} -Wl,-rpath,${_torch_lib_dir})
  target_link_libraries(Libtorch::torch INTERFACE ${Libtorch_cpu_LIBRARY} ${Libtorch_c10_LIBRARY})
  if(VARSCALE_CUDA)
    target_link_libraries(Libtorch::torch INTERFACE ${Libtorch_cuda_LIBRARY} ${Libtorch_c10_cuda_LIBRARY}
                          CUDA::cudart)
    # libtorch_cuda needs cuBLAS, cuDNN, NVSHMEM and others, which are not there where nothing is run. GNU ld
    # looks for their symbols when it links a program, which other linkers leave to the loader.
    # The wheel's own CUDA runtime and NCCL come before the toolkit's in the search at run time: one process
    # must not have two of them.
    target_link_options(Libtorch::torch INTERFACE -Wl,--allow-shlib-undefined
                        -Wl,-rpath,${_torch_lib_dir}/../../nvidia/cu13/lib
                        -Wl,-rpath,${_torch_lib_dir}/../../nvidia/nccl/lib)
  endif()
endif()
