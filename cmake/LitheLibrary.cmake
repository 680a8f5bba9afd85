# lithe_library(NAME FOLDER [PUBLIC ...] [PRIVATE ...] [RECURSE]): one static library of a folder's
# sources. With CUDA its *.cu files are compiled, without it the refusing *_no_cuda.cpp twins.
function(lithe_library name folder)
  cmake_parse_arguments(ARG "RECURSE" "" "PUBLIC;PRIVATE" ${ARGN})
  if(ARG_RECURSE)
    set(glob GLOB_RECURSE)
  else()
    set(glob GLOB)
  endif()
  file(${glob} sources CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.cpp)
  if(LITHE_HAS_CUDA)
    list(FILTER sources EXCLUDE REGEX "_no_cuda\\.cpp$")
    file(${glob} kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/${folder}/*.cu)
    list(APPEND sources ${kernels})
  endif()
  add_library(lithe_${name} STATIC ${sources})
  target_link_libraries(lithe_${name} PUBLIC lithe_options ${ARG_PUBLIC} PRIVATE ${ARG_PRIVATE})
  if(kernels)
    target_compile_options(lithe_${name} PRIVATE
      $<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=-Wall,-Wextra --expt-relaxed-constexpr
      --extended-lambda>)
    target_link_libraries(lithe_${name} PUBLIC CUDA::cudart_static CUDA::cublasLt)
  endif()
endfunction()
