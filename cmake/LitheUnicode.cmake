# lithe_utf8proc: Unicode tables for the tokenizers.
find_path(LITHE_UTF8PROC_INCLUDE utf8proc.h)
find_library(LITHE_UTF8PROC NAMES utf8proc)
if(NOT LITHE_UTF8PROC_INCLUDE OR NOT LITHE_UTF8PROC)
  message(FATAL_ERROR "lithe: utf8proc was not found; install libutf8proc-dev")
endif()
add_library(lithe_utf8proc INTERFACE IMPORTED GLOBAL)
target_include_directories(lithe_utf8proc SYSTEM INTERFACE ${LITHE_UTF8PROC_INCLUDE})
target_link_libraries(lithe_utf8proc INTERFACE ${LITHE_UTF8PROC})
