# CUDA is compiled when nvcc is found; the binary then also runs on a machine without a GPU. The
# kernels are written for Hopper: warpgroups, clusters and the copy engine.
set(LITHE_HAS_CUDA OFF)
set(wanted ${LITHE_CUDA})
if(wanted STREQUAL "AUTO")
  execute_process(COMMAND nvidia-smi --query-gpu=name,compute_cap --format=csv,noheader
                  OUTPUT_VARIABLE cards ERROR_QUIET RESULT_VARIABLE failed)
  if(NOT failed AND cards MATCHES "[0-9]" AND NOT cards MATCHES ", 9\\.0")
    string(STRIP "${cards}" cards)
    message(WARNING "lithe: no card here is of compute capability 9.0 (H100, H200), which the "
                    "CUDA kernels are written for: ${cards}. Building for the CPU alone; "
                    "-DLITHE_CUDA=ON compiles them all the same.")
    set(wanted OFF)
  endif()
endif()
if(NOT wanted STREQUAL "OFF")
  include(CheckLanguage)
  set(CMAKE_CUDA_ARCHITECTURES 90a)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    # CMake before 3.26 does not know nvcc's flag for C++20.
    if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
      set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    find_package(CUDAToolkit REQUIRED)
    # fmt 9 turns its constexpr off for nvcc, on which its own compile-time checks then fail.
    add_compile_definitions($<$<COMPILE_LANGUAGE:CUDA>:FMT_USE_CONSTEXPR=1>)
    add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Werror all-warnings -Xcompiler=-Werror>")
    set(LITHE_HAS_CUDA ON)
  elseif(wanted STREQUAL "ON")
    message(FATAL_ERROR "LITHE_CUDA is ON but nvcc was not found")
  endif()
endif()

# Convolutions go through cuDNN 9 where it is found: beside the toolkit, or under LITHE_CUDNN_ROOT
# (PyTorch's wheel carries one). Without it own kernels are linked, which are right but slower.
set(LITHE_CUDNN "AUTO" CACHE STRING "AUTO (when cuDNN 9 is found), ON or OFF")
set(LITHE_CUDNN_ROOT "" CACHE PATH "Folder of cuDNN's include and lib; empty: the usual places")
set(LITHE_HAS_CUDNN OFF)
if(LITHE_HAS_CUDA AND NOT LITHE_CUDNN STREQUAL "OFF")
  find_path(LITHE_CUDNN_INCLUDE cudnn.h HINTS ${LITHE_CUDNN_ROOT} ${CUDAToolkit_INCLUDE_DIRS}
            PATH_SUFFIXES include)
  find_library(LITHE_CUDNN_LIBRARY NAMES cudnn libcudnn.so.9 NAMES_PER_DIR
               HINTS ${LITHE_CUDNN_ROOT} ${CUDAToolkit_LIBRARY_DIR} PATH_SUFFIXES lib64 lib)
  set(version "")
  if(LITHE_CUDNN_INCLUDE AND LITHE_CUDNN_LIBRARY AND
     EXISTS ${LITHE_CUDNN_INCLUDE}/cudnn_version.h)
    file(STRINGS ${LITHE_CUDNN_INCLUDE}/cudnn_version.h version REGEX "define CUDNN_MAJOR 9")
  endif()
  if(version)
    set(LITHE_HAS_CUDNN ON)
    add_library(lithe_cudnn INTERFACE)
    target_include_directories(lithe_cudnn SYSTEM INTERFACE ${LITHE_CUDNN_INCLUDE})
    target_link_libraries(lithe_cudnn INTERFACE ${LITHE_CUDNN_LIBRARY})
  elseif(LITHE_CUDNN STREQUAL "ON")
    message(FATAL_ERROR "LITHE_CUDNN is ON but cuDNN 9 was not found; set LITHE_CUDNN_ROOT")
  endif()
endif()
message(STATUS "lithe: CUDA ${LITHE_HAS_CUDA} ${CMAKE_CUDA_ARCHITECTURES}, cuDNN ${LITHE_HAS_CUDNN} "
        "${LITHE_CUDNN_LIBRARY}")
