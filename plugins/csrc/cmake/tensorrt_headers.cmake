# TensorRT_INCLUDE_DIR and CUDA_INCLUDE_DIR: TensorRT's headers, and CUDA's, which they include. Libraries are opened at
# run time, so that nothing else of either is needed. Without TensorRT's headers TensorRT_INCLUDE_DIR is false.
set(TensorRT_ROOT "" CACHE PATH "Folder whose include/ has NvInferRuntime.h, where that is not in the system's own")
if(NOT CUDA_INCLUDE_DIR)
  find_package(CUDAToolkit QUIET)  # finds toolkits that have nvcc; headers alone, as Python's packages have them, it does not
endif()
find_path(CUDA_INCLUDE_DIR cuda_runtime_api.h
  HINTS ${CUDAToolkit_INCLUDE_DIRS} ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda PATH_SUFFIXES include)
if(TensorRT_ROOT)
  set(where PATHS ${TensorRT_ROOT} PATH_SUFFIXES include include/${CMAKE_LIBRARY_ARCHITECTURE} NO_DEFAULT_PATH REQUIRED)
endif()
find_path(TensorRT_INCLUDE_DIR NvInferRuntime.h ${where} NO_CACHE)  # looked up again for another root
if(TensorRT_INCLUDE_DIR AND NOT CUDA_INCLUDE_DIR)
  message(FATAL_ERROR "TensorRT's headers include CUDA's, which are not found\n  try:     -DCUDA_INCLUDE_DIR=<folder with cuda_runtime_api.h>, or -DCUDAToolkit_ROOT=<toolkit>")
endif()
