# lithe_blas: cblas.h and an OpenBLAS whose threads are OpenMP's, so that GEMMs and Lithe's own loops
# share one team. The flavour is linked by its full path: Debian's alternatives prefer the pthread one,
# whose second pool of threads fights the first for the cores. Programs get a build RPATH to it.
set(LITHE_BLAS_LIBRARY "" CACHE FILEPATH "BLAS to link; empty: OpenBLAS with OpenMP, else find_package")

set(lithe_blas_folders
  /usr/lib/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-openmp
  /usr/lib64/openblas-openmp
  /usr/lib/openblas-openmp)
find_library(LITHE_OPENBLAS_OPENMP NAMES openblas PATHS ${lithe_blas_folders} NO_DEFAULT_PATH)
# Fedora and its kin name the OpenMP flavour libopenblaso.
find_library(LITHE_OPENBLAS_OPENMP NAMES openblaso)
find_path(LITHE_CBLAS_INCLUDE cblas.h
  HINTS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}/openblas-openmp
  PATH_SUFFIXES openblas openblas-pthread ${CMAKE_LIBRARY_ARCHITECTURE}
                ${CMAKE_LIBRARY_ARCHITECTURE}/openblas-pthread)
if(NOT LITHE_CBLAS_INCLUDE)
  message(FATAL_ERROR "lithe: cblas.h was not found; install libopenblas-openmp-dev")
endif()

add_library(lithe_blas INTERFACE IMPORTED GLOBAL)
target_include_directories(lithe_blas SYSTEM INTERFACE ${LITHE_CBLAS_INCLUDE})
if(LITHE_BLAS_LIBRARY)
  set(lithe_blas_linked ${LITHE_BLAS_LIBRARY})
elseif(LITHE_OPENBLAS_OPENMP)
  set(lithe_blas_linked ${LITHE_OPENBLAS_OPENMP})
else()
  find_package(BLAS REQUIRED)
  set(lithe_blas_linked ${BLAS_LIBRARIES})
  message(STATUS "lithe: no OpenMP flavour of OpenBLAS; install libopenblas-openmp-dev for speed")
endif()
target_link_libraries(lithe_blas INTERFACE ${lithe_blas_linked})
message(STATUS "lithe: BLAS ${lithe_blas_linked}")
