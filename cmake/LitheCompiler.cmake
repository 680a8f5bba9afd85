# Language level, warnings and sanitizers for every target.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()

find_program(LITHE_CCACHE ccache)
if(LITHE_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${LITHE_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${LITHE_CCACHE})
endif()

add_library(lithe_options INTERFACE)
target_include_directories(lithe_options INTERFACE ${CMAKE_SOURCE_DIR}/src)
# errno and trapping are never looked at; reassociation stays off, so sums are as written.
target_compile_options(lithe_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion
  -Werror -fno-math-errno -fno-trapping-math>)
# Warnings that GCC 12 raises inside its own headers at -O3: AVX-512 maxima (GCC bug 105593), inlined
# string concatenation (105651), inlined fmt buffers (105329).
target_compile_options(lithe_options INTERFACE
  $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-maybe-uninitialized -Wno-restrict -Wno-stringop-overflow>)
if(LITHE_NATIVE)
  target_compile_options(lithe_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-march=native
    -mprefer-vector-width=512>)
endif()
if(LITHE_SANITIZE)
  target_compile_options(lithe_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${LITHE_SANITIZE} -fno-omit-frame-pointer>)
  target_link_options(lithe_options INTERFACE -fsanitize=${LITHE_SANITIZE})
endif()
