#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "io/safetensors.h"
#include "temp_folder.h"
#include "tensor/core/error.h"

namespace lithe {
namespace {

namespace fs = std::filesystem;

// A file with this header text (its length written truthfully) and `data_bytes` zero bytes.
std::string file_of(std::string_view header, size_t data_bytes) {
  std::string out(8, '\0');
  const uint64_t size = header.size();
  std::memcpy(out.data(), &size, 8);
  out += header;
  out.append(data_bytes, '\0');
  return out;
}

std::string refusal(const TempFolder& folder, std::string_view content,
                    std::string_view name = "x.safetensors") {
  const fs::path path = folder.write(name, content);
  return message_of<FileError>([&] { SafetensorsFile::open(path); });
}

std::string read_all(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST_CASE("safetensors: all dtypes, scalars and empty tensors survive a round trip") {
  const TempFolder folder;
  std::vector<NamedTensor> tensors;
  int8_t value = 1;
  for (const DType dtype : {DType::f64, DType::f32, DType::bf16, DType::f16, DType::i8, DType::u8,
                            DType::i32, DType::i64}) {
    Tensor source(DType::i8, {3, 5});
    for (int8_t& x : source.as<int8_t>()) {
      x = value++ % 100;
    }
    tensors.push_back({std::string("w.") + std::string(dtype_name(dtype)), source.to(dtype)});
  }
  tensors.push_back({"scalar", Tensor::from<float>({}, std::vector<float>{2.5f})});
  tensors.push_back({"empty", Tensor(DType::f32, {4, 0})});
  tensors.push_back({"odd \"name\" \xc3\xa9", Tensor(DType::u8, {3})});
  Tensor flags(DType::boolean, {3});
  flags.as<bool>()[1] = true;
  tensors.push_back({"flags", flags});
  const fs::path path = folder / "all.safetensors";
  write_safetensors(path, tensors, {{"format", "pt"}, {"note", "a\nb"}});

  const SafetensorsFile file = SafetensorsFile::open(path);
  CHECK(file.names().size() == tensors.size());
  CHECK(file.metadata().at("note") == "a\nb");
  for (const NamedTensor& entry : tensors) {
    CAPTURE(entry.name);
    const TensorInfo& info = file.info(entry.name);
    CHECK(info.dtype == entry.tensor.dtype());
    CHECK(info.shape == entry.tensor.shape());
    const Tensor read = file.read(entry.name);
    REQUIRE(read.bytes() == entry.tensor.bytes());
    CHECK(std::memcmp(read.data(), entry.tensor.data(), static_cast<size_t>(read.bytes())) == 0);
    // Wide elements come first, so each tensor is aligned to its element in the file too.
    CHECK(info.begin % std::max(1, dtype_bits(info.dtype) / 8) == 0);
  }
  uint64_t header_bytes = 0;
  const std::string raw = read_all(path);
  std::memcpy(&header_bytes, raw.data(), 8);
  CHECK(header_bytes % 8 == 0);
  // Only the file itself is left: the temporary name is gone, permissions follow the umask.
  CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator{}) == 1);
  const mode_t mask = umask(0);
  umask(mask);
  struct stat info = {};
  REQUIRE(stat(path.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == (0666 & ~mask));
}

TEST_CASE("safetensors: a file of another writer, with padding and unaligned data") {
  const TempFolder folder;
  const std::string header =
      R"({"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
      R"("a":{"data_offsets":[1,9],"shape":[2],"dtype":"F32"},"__metadata__":{"k":"v"}}  )";
  std::string content = file_of(header, 9);
  const float values[2] = {1.5f, -2.0f};
  std::memcpy(content.data() + content.size() - 8, values, 8);
  const SafetensorsFile file = SafetensorsFile::open(folder.write("x.safetensors", content));
  CHECK(file.names() == std::vector<std::string>{"a", "b"});
  CHECK(file.bytes("a").size() == 8);
  CHECK(file.read("a").as<float>()[1] == -2.0f);
  CHECK(file.metadata().at("k") == "v");
  CHECK(SafetensorsFile::open(folder.write("e.safetensors", file_of("{}", 0))).names().empty());
}

TEST_CASE("safetensors: hostile headers are refused with what is wrong and what to do") {
  const TempFolder folder;
  struct Case {
    const char* header;
    size_t data_bytes;
    const char* expected;
  };
  const Case cases[] = {
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "needs 8 bytes"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 4, "data section has 4"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 5, "section has 5"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "offsets 4..0"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8, "hole"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
       6, "overlap"},
      {R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
       R"("b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}})",
       4, "overlap"},
      {R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0,
       "more than 2^63"},
      {R"({"a":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0,
       "more than 2^63"},
      {R"({"a":{"dtype":"U8","shape":[9223372036854775808],"data_offsets":[0,0]}})", 0,
       "above 2^63"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,99999999999999999999]}})", 1,
       "99999999999999999999"},
      {R"({"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "negative number -1"},
      {R"({"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}})", 4, "1.0"},
      {R"({"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}})", 4, "boolean"},
      {R"({"a":{"dtype":"F32","shape":[[1]],"data_offsets":[0,4]}})", 4, "array"},
      {R"({"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}})", 1, "F8_E4M3"},
      {R"({"a":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})", 4, "number 4"},
      {R"({"a":{"dtype":"U8","shape":[1,1,1,1,1,1,1],"data_offsets":[0,1]}})", 1, "dimensions"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,2,4]}})", 4, "more than two"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4]}})", 4, "1 offsets"},
      {R"({"a":{"dtype":"F32","shape":[1]}})", 4, "2 of 3 keys"},
      {R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4],"x":1}})", 4, "unknown key 'x'"},
      {R"({"a":{"dtype":"F32","dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 4, "twice"},
      {R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},)"
       R"("a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})",
       0, "'a' is listed twice"},
      {R"({"__metadata__":{"k":"v","k":"w"}})", 0, "twice"},
      {R"({"__metadata__":{"k":1}})", 0, "number 1"},
      {R"({"__metadata__":{"k":{}}})", 0, "object"},
      {R"({"__metadata__":"k"})", 0, "string"},
      {R"({"a":null})", 0, "null"},
      {R"({"a":[]})", 0, "array"},
      {R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]})", 1, "not valid JSON"},
      {R"({} x)", 0, "not valid JSON"},
      {"{\"\xff\":1}", 0, "not valid JSON"},
      {R"([])", 0, "does not begin with '{'"},
      {R"( {})", 0, "does not begin with '{'"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.header);
    const std::string message = refusal(folder, file_of(c.header, c.data_bytes));
    CAPTURE(message);
    CHECK(has(message, c.expected));
    CHECK(has(message, "x.safetensors"));
  }
  // Depth is bounded by the grammar, not by the stack.
  CHECK(has(refusal(folder, file_of("{\"a\":" + std::string(100000, '['), 0)), "array"));
  CHECK(has(refusal(folder, file_of("{\"__metadata__\":{\"a\":" + std::string(100000, '{'), 0)),
            "object"));
}

TEST_CASE("safetensors: lengths beyond the file and every truncation are refused") {
  const TempFolder folder;
  for (const uint64_t length : {uint64_t{3}, uint64_t{1} << 40, UINT64_MAX, uint64_t{INT64_MAX}}) {
    std::string content = file_of("{}", 0);
    std::memcpy(content.data(), &length, 8);
    CHECK(has(refusal(folder, content), std::to_string(length)));
  }
  // Above 100 MiB, even where the file is long enough (sparse, so nothing is written).
  const fs::path big = folder.write("big.safetensors", "");
  const uint64_t length = kMaxSafetensorsHeaderBytes + 1;
  std::string prefix(8, '\0');
  std::memcpy(prefix.data(), &length, 8);
  folder.write("big.safetensors", prefix + "{");
  REQUIRE(truncate(big.c_str(), 200 * 1024 * 1024) == 0);
  CHECK(has(message_of<FileError>([&] { SafetensorsFile::open(big); }), "the limit is 104857600"));

  const std::string whole = file_of(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8);
  REQUIRE(SafetensorsFile::open(folder.write("x.safetensors", whole)).names().size() == 1);
  for (size_t n = 0; n < whole.size(); ++n) {
    CAPTURE(n);
    CHECK(has(refusal(folder, std::string_view(whole).substr(0, n)), "[safetensors]"));
  }
}

TEST_CASE("safetensors: single flipped bytes never do worse than a FileError") {
  const TempFolder folder;
  const std::string whole = file_of(
      R"({"a":{"dtype":"BOOL","shape":[2],"data_offsets":[0,2]},"__metadata__":{"k":"v"}})", 2);
  int refused = 0;
  for (size_t at = 0; at < whole.size(); ++at) {
    for (const int mask : {0x01, 0x80, 0x10}) {
      std::string content = whole;
      content[at] = static_cast<char>(content[at] ^ mask);
      try {
        const SafetensorsFile file = SafetensorsFile::open(folder.write("x.safetensors", content));
        for (const std::string& name : file.names()) {
          file.read(name);
        }
      } catch (const FileError&) {
        ++refused;
      }
    }
  }
  CHECK(refused > 150);
}

TEST_CASE("safetensors: files that are not safetensors") {
  const TempFolder folder;
  using namespace std::string_literals;
  const std::string zip = "PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00"s;
  const std::string pickle = "\x80\x02}q\x00X\x06\x00\x00\x00weight"s;
  for (const char* name : {"a.bin", "a.pt", "a.pth", "a.ckpt", "a.pkl"}) {
    CHECK(has(refusal(folder, zip, name), "weights_only=True"));
  }
  CHECK(has(refusal(folder, zip), "is a pickle file"));
  CHECK(has(refusal(folder, pickle), "is a pickle file"));
  // A header of 640 bytes begins with the bytes of a pickle, and is none.
  std::string header = R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})";
  header.resize(640, ' ');
  const std::string content = file_of(header, 1);
  REQUIRE(content.substr(0, 2) == "\x80\x02");
  CHECK(SafetensorsFile::open(folder.write("x.safetensors", content)).contains("a"));

  CHECK(has(message_of<FileError>([&] { SafetensorsFile::open(folder / "no.safetensors"); }),
            "cannot be opened"));
  CHECK(has(message_of<FileError>([&] { SafetensorsFile::open(folder.path()); }), "regular file"));
  REQUIRE(mkfifo((folder / "pipe").c_str(), 0600) == 0);
  CHECK(
      has(message_of<FileError>([&] { SafetensorsFile::open(folder / "pipe"); }), "regular file"));
  const SafetensorsFile file = SafetensorsFile::open(folder.write("x.safetensors", content));
  CHECK(has(message_of<FileError>([&] { file.read("b"); }), "holds 1 tensors, none named 'b'"));
  try {
    file.read("b");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kFile);
  }
}

TEST_CASE("safetensors: BOOL bytes other than 0 and 1 are refused when read") {
  const TempFolder folder;
  std::string content = file_of(R"({"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}})", 1);
  content.back() = 2;
  const SafetensorsFile file = SafetensorsFile::open(folder.write("x.safetensors", content));
  CHECK(has(message_of<FileError>([&] { file.read("a"); }), "other than 0 and 1"));
}

TEST_CASE("safetensors: offsets above 4 GiB") {
  const TempFolder folder;
  const int64_t big = int64_t{5} << 30;
  const std::string header =
      fmt::format(R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[0,{}]}},)"
                  R"("b":{{"dtype":"U8","shape":[1],"data_offsets":[{},{}]}}}})",
                  big, big, big, big + 1);
  const fs::path path = folder.write("big.safetensors", file_of(header, 0));
  const auto tail = static_cast<off_t>(8 + static_cast<int64_t>(header.size()) + big);
  const int fd = ::open(path.c_str(), O_WRONLY);  // sparse: one byte behind a hole
  REQUIRE(fd >= 0);
  REQUIRE(::pwrite(fd, "\x2a", 1, tail) == 1);
  REQUIRE(::close(fd) == 0);
  const SafetensorsFile file = SafetensorsFile::open(path);
  CHECK(file.read("b").as<uint8_t>()[0] == 42);
  CHECK(static_cast<int64_t>(file.bytes("a").size()) == big);
}

TEST_CASE("safetensors: sharded folders follow the index") {
  const TempFolder folder;
  const auto tensor = [](float x) { return Tensor::from<float>({1}, std::vector<float>{x}); };
  const std::vector<NamedTensor> one{{"a", tensor(1)}, {"unlisted", tensor(9)}};
  const std::vector<NamedTensor> two{{"b", tensor(2)}};
  write_safetensors(folder / "model-00001-of-00002.safetensors", one);
  write_safetensors(folder / "model-00002-of-00002.safetensors", two);
  const auto index = [&](std::string_view text) {
    folder.write("model.safetensors.index.json", text);
    return message_of<FileError>([&] { SafetensorsFolder::open(folder.path()); });
  };
  folder.write(
      "model.safetensors.index.json",
      R"({"metadata":{"total_size":8,"x":[{"weight_map":1}]},"weight_map":{)"
      R"("b":"model-00002-of-00002.safetensors","a":"model-00001-of-00002.safetensors"}})");
  SafetensorsFolder weights = SafetensorsFolder::open(folder.path());
  weights = SafetensorsFolder(std::move(weights));
  CHECK(weights.names() == std::vector<std::string>{"a", "b"});
  CHECK(weights.shards().size() == 2);
  CHECK(weights.read("a").as<float>()[0] == 1);
  CHECK(weights.read("b").as<float>()[0] == 2);
  CHECK(weights.info("b").dtype == DType::f32);
  CHECK(has(message_of<FileError>([&] { weights.read("c"); }), "none named 'c'"));

  CHECK(has(index(R"({"weight_map":{"a":"model-00002-of-00002.safetensors"}})"),
            "the index places 'a' there"));
  CHECK(has(index(R"({"weight_map":{"a":"../model-00001-of-00002.safetensors"}})"),
            "not a plain file name"));
  CHECK(has(index(R"({"weight_map":{"a":"/etc/passwd"}})"), "not a plain file name"));
  CHECK(has(index(R"({"weight_map":{"a":".."}})"), "not a plain file name"));
  CHECK(has(index(R"({"weight_map":{"a":"x.bin"}})"), "pickle"));
  CHECK(has(index(R"({"weight_map":{"a":"gone.safetensors"}})"), "cannot be opened"));
  CHECK(has(index(R"({"weight_map":{"a":1}})"), "a number"));
  CHECK(has(index(R"({"weight_map":{"a":{}}})"), "an object"));
  CHECK(has(index(R"({"weight_map":[]})"), "an array"));
  CHECK(has(index(R"({"weight_map":{"a":"x","a":"x"}})"), "listed twice"));
  CHECK(has(index(R"({"weight_map":{},"weight_map":{}})"), "listed twice"));
  CHECK(has(index(R"({"metadata":{}})"), "no \"weight_map\""));
  CHECK(has(index(R"([1])"), "an array"));
  CHECK(has(index(R"({"weight_map":)"), "not valid JSON"));
  CHECK(has(index(""), "not valid JSON"));
  CHECK(has(index("{\"x\":" + std::string(100000, '[')), "nested deeper"));
}

TEST_CASE("safetensors: folders with one file, another stem, or pickle only") {
  const TempFolder folder;
  CHECK(has(message_of<FileError>([&] { SafetensorsFolder::open(folder.path()); }),
            "has neither model.safetensors nor"));
  folder.write("pytorch_model.bin", "PK");
  CHECK(has(message_of<FileError>([&] { SafetensorsFolder::open(folder.path()); }), "pickle"));
  const std::vector<NamedTensor> tensors{{"a", Tensor(DType::f32, {2})}};
  write_safetensors(folder / "model.safetensors", tensors);
  write_safetensors(folder / "adapter_model.safetensors", tensors);
  CHECK(SafetensorsFolder::open(folder.path()).contains("a"));
  CHECK(SafetensorsFolder::open(folder.path(), "adapter_model").contains("a"));
  CHECK(SafetensorsFolder::open(folder / "model.safetensors").read("a").numel() == 2);
}

TEST_CASE("safetensors writer: any order, checked, and all or nothing") {
  const TempFolder folder;
  const fs::path path = folder.write("x.safetensors", "old");
  const std::vector<TensorSpec> specs{{"a", DType::u8, {2}}, {"b", DType::f32, {1}}};
  const std::vector<std::byte> a(2, std::byte{7}), b(4, std::byte{9});
  const auto files = [&] {
    return std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator{});
  };
  {
    SafetensorsWriter writer(path, specs);
    CHECK(files() == 2);
    writer.write("a", a);
    CHECK(has(message_of<UsageError>([&] { writer.write("a", a); }), "already written"));
    CHECK(has(message_of<UsageError>([&] { writer.write("b", a); }), "needs 4 bytes, got 2"));
    CHECK(has(message_of<UsageError>([&] { writer.write("c", a); }), "was not announced"));
    CHECK(has(message_of<UsageError>([&] { writer.commit(); }), "'b' of 4 bytes was not written"));
  }
  CHECK(files() == 1);
  CHECK(read_all(path) == "old");
  {
    SafetensorsWriter first(path, specs), second(path, specs);  // two temporary names
    second.write("a", a);
    second.write("b", b);
    second.commit();
  }
  CHECK(files() == 1);
  const SafetensorsFile file = SafetensorsFile::open(path);
  CHECK(file.read("a").as<uint8_t>()[1] == 7);
  CHECK(file.info("b").begin == 0);

  const auto refused = [&](std::vector<NamedTensor> tensors, const Metadata& metadata = {}) {
    return message_of<UsageError>([&] { write_safetensors(path, tensors, metadata); });
  };
  const Tensor t(DType::f32, {1});
  CHECK(has(refused({{"a", t}, {"a", t}}), "used twice"));
  CHECK(has(refused({{"__metadata__", t}}), "reserved"));
  CHECK(has(refused({{"\xff", t}}), "not UTF-8"));
  CHECK(has(refused({}, {{"k", "\xff"}}), "not UTF-8"));
  CHECK(has(refused({{"a", Tensor(DType::i4, {2})}}), "packed as uint8"));
  CHECK(has(message_of<FileError>([&] { write_safetensors(folder / "no/x.safetensors", {}); }),
            "cannot create"));
  CHECK(files() == 1);
  CHECK(SafetensorsFile::open(path).names().size() == 2);  // the refusals left it alone
}

}  // namespace
}  // namespace lithe
