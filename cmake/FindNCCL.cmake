# Finds NCCL and defines NCCL::nccl: beside the torch wheel, as the file that libtorch_cuda itself uses, else
# in the CUDA toolkit. A wheel has libnccl.so.2 alone, without the name that linkers look for.

file(GLOB _nccl_in_deps ${CMAKE_SOURCE_DIR}/.deps/venv/lib/python3*/site-packages/nvidia/nccl)
set(_nccl_places ${_nccl_in_deps})
if(VARSCALE_TORCH_DIR)
  list(PREPEND _nccl_places ${VARSCALE_TORCH_DIR}/../nvidia/nccl)
endif()

find_library(NCCL_LIBRARY NAMES libnccl.so.2 nccl HINTS ${_nccl_places} ${CUDAToolkit_LIBRARY_DIR}
             PATH_SUFFIXES lib)
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${_nccl_places} ${CUDAToolkit_INCLUDE_DIRS} PATH_SUFFIXES include)
mark_as_advanced(NCCL_LIBRARY NCCL_INCLUDE_DIR)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(
  NCCL REQUIRED_VARS NCCL_LIBRARY NCCL_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "run ./launch/setup.sh --gpu, or install NCCL into the CUDA toolkit")

if(NCCL_FOUND AND NOT TARGET NCCL::nccl)
  add_library(NCCL::nccl INTERFACE IMPORTED)
  target_include_directories(NCCL::nccl SYSTEM INTERFACE ${NCCL_INCLUDE_DIR})
  target_link_libraries(NCCL::nccl INTERFACE ${NCCL_LIBRARY})
endif()
