// Scalars as TensorBoard reads them: event files of TFRecords, each an Event message.
//   record  uint64 length | uint32 masked CRC-32C of it | the message | uint32 masked CRC-32C of it
//   mask    rotate right by 15 bits, add 0xa282ead8
//   Event   1 wall_time double | 2 step int64 | 3 file_version | 5 Summary | 7 SessionLog
// Sources: tensorflow/core/lib/io/record_writer.cc, core/util/event.proto, framework/summary.proto.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "report/run_data.h"
#include "tensor/core/append_file.h"

namespace lithe {

class EventWriter {
 public:
  // Creates FOLDER/events.out.tfevents.TIME.HOST.PID, whose name sorts after those that are there,
  // and writes its version record. Throws FileError, as the others do.
  explicit EventWriter(const std::filesystem::path& folder);

  // One event with a scalar for each number, as fp32; the key is the tag.
  void scalars(int64_t step, const NamedNumbers& values);
  // Makes readers drop what earlier files hold of `step` and later.
  void session_start(int64_t step);

  const std::filesystem::path& path() const { return file_.path(); }
  void sync() { file_.sync(); }

 private:
  AppendFile file_;
};

// Whether a file in that folder is one of these.
bool is_event_file(const std::filesystem::path& path);

}  // namespace lithe
