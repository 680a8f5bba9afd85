// A table of broken and hostile files, one rule of the format each, and what reading them may cost.
#include <doctest/doctest.h>
#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <new>

#include "io/safetensors.h"
#include "temp_folder.h"
#include "tensor/core/error.h"

namespace {

// Bytes that operator new has given out and not got back, and the most it had since the last reset.
std::atomic<int64_t> live_bytes{0};
std::atomic<int64_t> most_bytes{0};

void* count(void* pointer) {
  if (pointer == nullptr) {
    throw std::bad_alloc();
  }
  const int64_t now = live_bytes += static_cast<int64_t>(malloc_usable_size(pointer));
  int64_t most = most_bytes;
  while (now > most && !most_bytes.compare_exchange_weak(most, now)) {
  }
  return pointer;
}

void release(void* pointer) {
  if (pointer != nullptr) {
    live_bytes -= static_cast<int64_t>(malloc_usable_size(pointer));
    std::free(pointer);
  }
}

}  // namespace

void* operator new(size_t size) { return count(std::malloc(size)); }
void* operator new(size_t size, std::align_val_t alignment) {
  const auto step = static_cast<size_t>(alignment);
  return count(std::aligned_alloc(step, (size + step - 1) / step * step));
}
void operator delete(void* pointer) noexcept { release(pointer); }
void operator delete(void* pointer, size_t) noexcept { release(pointer); }
void operator delete(void* pointer, std::align_val_t) noexcept { release(pointer); }
void operator delete(void* pointer, size_t, std::align_val_t) noexcept { release(pointer); }

namespace lithe {
namespace {

namespace fs = std::filesystem;

std::string file_of(std::string_view header, size_t data_bytes) {
  std::string out(8, '\0');
  const uint64_t size = header.size();
  std::memcpy(out.data(), &size, 8);
  out += header;
  out.append(data_bytes, '\0');
  return out;
}

std::string entry(std::string_view name, std::string_view dtype, std::string_view shape,
                  std::string_view offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{}]}})", name, dtype,
                     shape, offsets);
}

std::string object(std::initializer_list<std::string> entries) {
  return fmt::format("{{{}}}", fmt::join(entries, ","));
}

// The most memory that opening the file and reading each of its tensors takes, beside what was
// there before; the message, if it is refused.
struct Outcome {
  std::string message;
  int64_t most = 0;
  size_t tensors = 0;
};

Outcome read_everything(const fs::path& path) {
  Outcome out;
  const int64_t before = live_bytes;
  most_bytes = before;
  try {
    const SafetensorsFile file = SafetensorsFile::open(path);
    for (const std::string& name : file.names()) {
      file.read(name);
      ++out.tensors;
    }
  } catch (const FileError& error) {
    out.message = error.what();
  }
  out.most = most_bytes - before;
  return out;
}

// Above this, memory must follow the file's size.
constexpr int64_t kAllowance = 16384;

TEST_CASE("hostile safetensors: every rule of the format") {
  using namespace std::string_literals;
  const std::string good = entry("a", "U8", "4", "0,4");
  struct Case {
    std::string rule;
    std::string content;
    const char* expected;  // in the message; "": it must be read
  };
  const std::vector<Case> cases = {
      {"a header that fills the file", file_of("{}", 0), ""},
      {"padding by spaces", file_of(object({good}) + "    ", 4), ""},
      {"unaligned tensors",
       file_of(object({entry("a", "U8", "1", "0,1"), entry("b", "F64", "1", "1,9")}), 9), ""},
      {"scalars", file_of(object({entry("a", "F32", "", "0,4")}), 4), ""},
      {"empty tensors between others",
       file_of(object({good, entry("e", "F32", "0,3", "4,4"), entry("b", "U8", "1", "4,5")}), 5),
       ""},
      {"names in JSON escapes", file_of(object({entry("\\u0061\\n\\u0000", "U8", "4", "0,4")}), 4),
       ""},
      {"a header of no bytes", std::string(10, '\0'), "does not begin with '{'"},
      {"a length beyond the file", "\xff\0\0\0\0\0\0\0{}"s, "header of 255 bytes"},
      {"a length above 2^63", "\xff\xff\xff\xff\xff\xff\xff\xff{}"s,
       "header of 18446744073709551615"},
      {"a header that ends early", "\x01\0\0\0\0\0\0\0{}"s, "not valid JSON"},
      {"a file of 9 bytes", "\x01\0\0\0\0\0\0\0{"s, "has 9 bytes"},
      {"no bytes", "", "has 0 bytes"},
      {"an array", file_of("[]", 0), "does not begin with '{'"},
      {"a byte order mark", file_of("\xef\xbb\xbf{}", 0), "does not begin with '{'"},
      {"text after the object", file_of("{}{}", 0), "not valid JSON"},
      {"NUL after the object", file_of("{}\0"s, 0), "not valid JSON at byte 3"},
      {"NUL and tensors after it", file_of("{}\0,"s + good, 0), "not valid JSON at byte 3"},
      {"NUL in a name", file_of(object({entry("a\0b"s, "U8", "4", "0,4")}), 4), "not valid JSON"},
      {"a comma too many", file_of("{" + good + ",}", 4), "not valid JSON"},
      {"a comment", file_of("{/**/}", 0), "not valid JSON"},
      {"single quotes", file_of("{'a':1}", 0), "not valid JSON"},
      {"NaN as a number", file_of(object({entry("a", "U8", "NaN", "0,4")}), 4), "not valid JSON"},
      {"a name that is not UTF-8", file_of(object({entry("\xff", "U8", "4", "0,4")}), 4),
       "not valid JSON"},
      {"an overlong name", file_of(object({entry("\xc0\xaf", "U8", "4", "0,4")}), 4),
       "not valid JSON"},
      {"a surrogate's bytes", file_of(object({entry("\xed\xa0\x80", "U8", "4", "0,4")}), 4),
       "not valid JSON"},
      {"half a surrogate pair", file_of(object({entry("\\ud800", "U8", "4", "0,4")}), 4),
       "not valid JSON"},
      {"a name twice", file_of(object({good, good}), 4), "'a' is listed twice"},
      {"a name twice, once escaped", file_of(object({good, entry("\\u0061", "U8", "4", "0,4")}), 4),
       "'a' is listed twice"},
      {"__metadata__ twice", file_of(R"({"__metadata__":{},"__metadata__":{}})", 0),
       "listed twice"},
      {"__metadata__ as a tensor", file_of(object({entry("__metadata__", "U8", "4", "0,4")}), 4),
       "has an array"},
      {"__metadata__ with a number", file_of(R"({"__metadata__":{"a":1}})", 0), "the number 1"},
      {"__metadata__ with null", file_of(R"({"__metadata__":{"a":null}})", 0), "null"},
      {"__metadata__ with a list", file_of(R"({"__metadata__":{"a":["b"]}})", 0), "an array"},
      {"__metadata__ as text", file_of(R"({"__metadata__":"a"})", 0), "a string"},
      {"a negative zero", file_of(object({entry("a", "U8", "4", "-0,4")}), 4), "negative number"},
      {"an exponent", file_of(object({entry("a", "U8", "4e0", "0,4")}), 4), "4e0"},
      {"text as an offset", file_of(object({entry("a", "U8", "4", "\"0\",4")}), 4), "a string"},
      {"offsets out of order", file_of(object({entry("a", "U8", "4", "4,0")}), 4), "offsets 4..0"},
      {"an end beyond the data", file_of(object({entry("a", "U8", "8", "0,8")}), 4),
       "data section has 4"},
      {"a begin beyond the data", file_of(object({good, entry("b", "U8", "0", "9,9")}), 4),
       "offsets 9..9"},
      {"the largest offsets",
       file_of(object({entry("a", "U8", "0", "9223372036854775807,9223372036854775807")}), 4),
       "data section has 4"},
      {"an offset of 2^64", file_of(object({entry("a", "U8", "4", "0,18446744073709551616")}), 4),
       "18446744073709551616"},
      {"an overlap", file_of(object({good, entry("b", "U8", "4", "3,7")}), 7), "they overlap"},
      {"an empty tensor inside another", file_of(object({good, entry("e", "U8", "0", "2,2")}), 4),
       "they overlap"},
      {"a hole", file_of(object({good, entry("b", "U8", "4", "5,9")}), 9), "there is a hole"},
      {"a hole at the start", file_of(object({entry("a", "U8", "4", "1,5")}), 5),
       "there is a hole"},
      {"bytes after the last tensor", file_of(object({good}), 5), "data section has 5"},
      {"bytes and no tensor", file_of("{}", 1), "data section has 1"},
      {"a shape too large for its offsets", file_of(object({entry("a", "F32", "4", "0,4")}), 4),
       "needs 16 bytes"},
      {"a shape whose size wraps to its offsets",
       file_of(object({entry("a", "U8", "4294967296,4294967296", "0,0")}), 0), "more than 2^63"},
      {"a shape whose bytes wrap",
       file_of(object({entry("a", "F32", "4611686018427387904", "0,0")}), 0), "more than 2^63"},
      {"seven dimensions", file_of(object({entry("a", "U8", "1,1,1,1,1,1,4", "0,4")}), 4),
       "dimensions"},
      {"F8_E4M3", file_of(object({entry("a", "F8_E4M3", "4", "0,4")}), 4),
       "dtype F8_E4M3, an 8-bit float, which is not supported; convert it to BF16"},
      {"F8_E5M2", file_of(object({entry("a", "F8_E5M2", "4", "0,4")}), 4), "convert it to BF16"},
      {"F8_E8M0", file_of(object({entry("a", "F8_E8M0", "4", "0,4")}), 4), "convert it to F32"},
      {"F4", file_of(object({entry("a", "F4", "8", "0,4")}), 4), "a 4-bit float"},
      {"C64", file_of(object({entry("a", "C64", "1", "0,8")}), 8), "real and imaginary"},
      {"U16", file_of(object({entry("a", "U16", "2", "0,4")}), 4), "convert it to I32"},
      {"U64", file_of(object({entry("a", "U64", "1", "0,8")}), 8), "convert it to I64"},
      {"a dtype nobody knows", file_of(object({entry("a", "f32", "1", "0,4")}), 4),
       "known are F64"},
      {"a tensor without a shape", file_of(R"({"a":{"dtype":"U8","data_offsets":[0,4]}})", 4),
       "2 of 3 keys"},
      {"a tensor without anything", file_of(R"({"a":{}})", 4), "0 of 3 keys"},
      {"one offset", file_of(object({entry("a", "U8", "4", "4")}), 4), "1 offsets"},
      {"three offsets", file_of(object({entry("a", "U8", "4", "0,4,4")}), 4), "more than two"},
      {"control characters in a message",
       file_of(object({entry("a\\u001b[2J", "X", "4", "0,4")}), 4), "'a?[2J'"},
      {"a name of 100000 bytes",
       file_of(object({entry(std::string(100000, 'n'), "X", "4", "0,4")}), 4), "n...'"},
  };
  const TempFolder folder;
  for (const Case& c : cases) {
    CAPTURE(c.rule);
    const Outcome out = read_everything(folder.write("x.safetensors", c.content));
    CAPTURE(out.message);
    if (*c.expected == '\0') {
      CHECK(out.message.empty());
    } else {
      CHECK(has(out.message, c.expected));
      CHECK(has(out.message, "x.safetensors"));
      CHECK(out.message.size() < 600);
    }
    CHECK(out.most <= 4 * static_cast<int64_t>(c.content.size()) + kAllowance);
  }
}

TEST_CASE("hostile safetensors: memory follows the file, not what it claims") {
  const TempFolder folder;
  const auto read = [&](const std::string& content) {
    Outcome out = read_everything(folder.write("x.safetensors", content));
    CAPTURE(out.message);
    return out;
  };
  // Data: one tensor at a time, copied once.
  const std::string data = file_of(object({entry("a", "U8", "4000000", "0,4000000"),
                                           entry("b", "F32", "1000000", "4000000,8000000")}),
                                   8000000);
  CHECK(read(data).tensors == 2);
  CHECK(read(data).most < 4000000 + kAllowance);

  // Entries: the smallest tensors and the smallest metadata cost the most for their bytes.
  std::string header = "{";
  for (int i = 0; i < 20000; ++i) {
    header += entry(fmt::format("{}", i), "U8", "0", "0,0") + ",";
  }
  header.back() = '}';
  Outcome out = read(file_of(header, 0));
  CHECK(out.tensors == 20000);
  CHECK(out.most < 4 * static_cast<int64_t>(header.size()));
  MESSAGE("20000 tensors: " << header.size() << " bytes of header, " << out.most << " of memory");

  const auto metadata = [&](int entries) {
    std::string text = R"({"__metadata__":{)";
    for (int i = 0; i < entries; ++i) {
      text += fmt::format(R"("{}":"",)", i);
    }
    text.back() = '}';
    return text + "}";
  };
  CHECK(read(file_of(metadata(65536), 0)).message.empty());
  out = read(file_of(metadata(1000000), 0));
  CHECK(has(out.message, "more than 65536 entries"));
  CHECK(out.most < 10'000'000);

  // Long texts, long numbers and deep nesting.
  constexpr size_t kLong = 8'000'000;
  const std::string name(1000000, 'n');
  CHECK(read(file_of(object({entry(name, "U8", "0", "0,0")}), 0)).most < 4 * 1000000);
  for (const std::string& text : {"{\"" + std::string(kLong, 'n'), "{\"" + std::string(kLong, '\\'),
                                  "{\"a\":{\"shape\":[" + std::string(kLong, '1') + "]}}"}) {
    CAPTURE(text.substr(0, 20));
    out = read(file_of(text, 0));
    CHECK(has(out.message, "more than 4194304 bytes"));
    CHECK(out.most < kAllowance);
  }
  // Just below the limit, the JSON library's copies for its own message stay bounded.
  out = read(file_of("{\"" + std::string(1 << 22, '\x01'), 0));
  CHECK(has(out.message, "not valid JSON"));
  CHECK(out.most < 80 << 20);
  CHECK(read(file_of("{\"a\":" + std::string(kLong, '['), 0)).most < kAllowance);
}

TEST_CASE("hostile safetensors: shards") {
  const TempFolder folder;
  const fs::path model = folder / "model";
  const auto tensor = [](float x) { return Tensor::from<float>({1}, std::vector<float>{x}); };
  fs::create_directories(model);
  write_safetensors(model / "one.safetensors", std::vector<NamedTensor>{{"a", tensor(1)}});
  write_safetensors(model / "two.safetensors",
                    std::vector<NamedTensor>{{"a", tensor(2)}, {"b", tensor(3)}});
  write_safetensors(folder / "outside.safetensors", std::vector<NamedTensor>{{"a", tensor(4)}});
  fs::create_directories(model / "below.safetensors");
  const auto index = [&](const std::string& text) {
    folder.write("model/model.safetensors.index.json", text);
    return message_of<FileError>([&] { SafetensorsFolder::open(model); });
  };
  const auto shard = [&](std::string_view name) {
    return index(fmt::format(R"({{"weight_map":{{"a":"{}"}}}})", name));
  };
  CHECK(shard("one.safetensors") == "(nothing was thrown)");
  const std::vector<std::string> elsewhere{"../outside.safetensors",
                                           "./one.safetensors",
                                           folder / "outside.safetensors",
                                           "..",
                                           ".",
                                           "",
                                           "one.safetensors/",
                                           "x/../one.safetensors",
                                           "one.safetensors\\u0000x"};
  for (const std::string& path : elsewhere) {
    CAPTURE(path);
    CHECK(has(shard(path), "not a plain file name"));
  }
  CHECK(has(shard("below.safetensors"), "regular file"));
  CHECK(has(shard("gone.safetensors"), "cannot be opened"));
  CHECK(has(shard("pytorch_model.bin"), "pickle"));
  CHECK(has(shard("model.safetensors.index.json"), "safetensors"));

  // Both shards hold 'a', and both are read.
  const std::string both = index(R"({"weight_map":{"a":"one.safetensors","b":"two.safetensors"}})");
  CHECK(has(both, "two.safetensors: tensor 'a' is also in"));
  CHECK(has(both, "one revision"));
  CHECK(has(index(std::string("{\"weight_map\":{}}\0{", 19)), "not valid JSON at byte 18"));
  CHECK(has(index("{\"weight_map\":{\"\xff\":\"one.safetensors\"}}"), "not valid JSON"));
}

}  // namespace
}  // namespace lithe
