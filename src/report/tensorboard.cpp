#include "report/tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <chrono>
#include <string>

#include "tensor/core/crc32c.h"
#include "tensor/core/whole_file.h"

namespace lithe {
namespace {

constexpr std::string_view kPrefix = "events.out.tfevents.";
constexpr std::string_view kFileVersion = "brain.Event:2";
constexpr int kSessionStart = 1;  // SessionLog.SessionStatus.START

// Protocol buffer fields: a tag (number and wire type), then the value.
enum class Wire : uint8_t { varint = 0, bits64 = 1, bytes = 2, bits32 = 5 };

void put_varint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) {
    out += static_cast<char>((value & 0x7f) | 0x80);
  }
  out += static_cast<char>(value);
}

void put_tag(std::string& out, int field, Wire wire) {
  put_varint(out, static_cast<uint64_t>(field) << 3 | static_cast<uint64_t>(wire));
}

template <typename UInt>
void put_little_endian(std::string& out, UInt value) {
  for (size_t byte = 0; byte < sizeof(UInt); ++byte) {
    out += static_cast<char>((value >> (8 * byte)) & 0xff);
  }
}

void put_bytes(std::string& out, int field, std::string_view bytes) {
  put_tag(out, field, Wire::bytes);
  put_varint(out, bytes.size());
  out += bytes;
}

void put_integer(std::string& out, int field, int64_t value) {
  put_tag(out, field, Wire::varint);
  put_varint(out, static_cast<uint64_t>(value));
}

std::string event_now(int64_t step) {
  const std::chrono::duration<double> now = std::chrono::system_clock::now().time_since_epoch();
  std::string event;
  put_tag(event, 1, Wire::bits64);
  put_little_endian(event, std::bit_cast<uint64_t>(now.count()));
  put_integer(event, 2, step);
  return event;
}

uint32_t masked_crc(std::string_view bytes) { return std::rotr(crc32c(bytes), 15) + 0xa282ead8u; }

std::string record(std::string_view message) {
  std::string out;
  put_little_endian(out, static_cast<uint64_t>(message.size()));
  put_little_endian(out, masked_crc(out));
  out += message;
  put_little_endian(out, masked_crc(message));
  return out;
}

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') {
    return "localhost";
  }
  return name.data();
}

// Readers go through the files by name and never back to one.
int64_t next_time(const std::filesystem::path& folder) {
  int64_t next = std::chrono::duration_cast<std::chrono::seconds>(
                     std::chrono::system_clock::now().time_since_epoch())
                     .count();
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator(folder, ignored)) {
    if (is_event_file(entry.path())) {
      const std::string name = entry.path().filename().string();
      int64_t time = 0;
      std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), time);
      next = std::max(next, time + 1);
    }
  }
  return next;
}

}  // namespace

bool is_event_file(const std::filesystem::path& path) {
  return path.filename().string().starts_with(kPrefix);
}

EventWriter::EventWriter(const std::filesystem::path& folder) {
  make_folders(folder);
  file_ = AppendFile(
      folder / fmt::format("{}{:010}.{}.{}", kPrefix, next_time(folder), host_name(), ::getpid()),
      /*fresh=*/true);
  std::string event = event_now(0);
  put_bytes(event, 3, kFileVersion);
  file_.append(record(event));
}

void EventWriter::scalars(int64_t step, const NamedNumbers& values) {
  std::string summary;
  for (const auto& [key, number] : values) {
    std::string value;
    put_bytes(value, 1, key);
    put_tag(value, 2, Wire::bits32);
    put_little_endian(value, std::bit_cast<uint32_t>(static_cast<float>(number)));
    put_bytes(summary, 1, value);
  }
  std::string event = event_now(step);
  put_bytes(event, 5, summary);
  file_.append(record(event));
}

void EventWriter::session_start(int64_t step) {
  std::string session;
  put_integer(session, 1, kSessionStart);
  std::string event = event_now(step);
  put_bytes(event, 7, session);
  file_.append(record(event));
}

}  // namespace lithe
