// Whole files appear complete or not at all: temporary name, fsync, rename, fsync of the folder.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

namespace lithe {

// Replaces `path` by `bytes`. Throws FileError with the system's reason (disk full, no permission);
// the old file is then untouched and the temporary file is gone.
void write_file_atomically(const std::filesystem::path& path, std::string_view bytes);

// The whole file. Throws FileError with the system's reason.
std::string read_whole_file(const std::filesystem::path& path);

// Writes all of `bytes` to an open descriptor, going on after signals; false leaves errno set.
bool write_all(int descriptor, std::string_view bytes);

}  // namespace lithe
