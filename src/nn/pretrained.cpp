#include "nn/pretrained.h"

#include <cstring>
#include <set>

#include <nlohmann/json.hpp>

#include "tensor/core/whole_file.h"

namespace lithe::nn {
namespace {

// out[i0, i1, i2, i3] = in[...] with the axes of `in` taken in `order`; any element size.
Tensor permute4(const Tensor& in, const std::array<int, 4>& order) {
  const Shape& s = in.shape();
  Tensor out(in.dtype(), {s[order[0]], s[order[1]], s[order[2]], s[order[3]]});
  const std::array<int64_t, 4> stride = {s[1] * s[2] * s[3], s[2] * s[3], s[3], 1};
  const auto element = static_cast<size_t>(dtype_bits(in.dtype()) / 8);
  std::byte* to = out.data();
  const Shape& t = out.shape();
  for (int64_t a = 0; a < t[0]; ++a) {
    for (int64_t b = 0; b < t[1]; ++b) {
      for (int64_t c = 0; c < t[2]; ++c) {
        for (int64_t d = 0; d < t[3]; ++d) {
          const int64_t from = a * stride[static_cast<size_t>(order[0])] +
                               b * stride[static_cast<size_t>(order[1])] +
                               c * stride[static_cast<size_t>(order[2])] +
                               d * stride[static_cast<size_t>(order[3])];
          std::memcpy(to, in.data() + static_cast<size_t>(from) * element, element);
          to += element;
        }
      }
    }
  }
  return out;
}

// Adapters have files of their own.
template <typename F>
void for_each_parameter(const Model& model, F&& f) {
  model.visit([&](const Module& module) {
    for (const Parameter& p : module.parameters()) {
      if (const Slot& slot = model.slots()[p.slot]; slot.cls != MemoryClass::adapters) {
        f(module, p, slot);
      }
    }
  });
}

// The name under which the file has a parameter, or "".
std::string file_name(const Model& model, const SafetensorsFolder& folder,
                      const std::string& parameter) {
  std::string found = folder.contains(parameter) ? parameter : "";
  for (std::string& other : model.other_names(parameter)) {
    if (!folder.contains(other)) {
      continue;
    }
    if (!found.empty()) {
      throw FileError("weights",
                      "'{}' and '{}' of the file are both the parameter '{}'; remove one of them",
                      found, other, parameter);
    }
    found = std::move(other);
  }
  return found;
}

}  // namespace

Tensor to_file_layout(const Tensor& value, FileLayout layout) {
  return layout == FileLayout::conv_oihw ? permute4(value, {0, 3, 1, 2}) : value;
}

Tensor from_file_layout(const Tensor& value, FileLayout layout) {
  if (layout == FileLayout::same) {
    return value;
  }
  if (value.shape().rank() != 4) {
    throw FileError("weights", "a convolution's weight has shape {}, [O, I, KH, KW] is wanted",
                    value.shape());
  }
  return permute4(value, {0, 2, 3, 1});
}

NameMatch match_names(const Model& model, const SafetensorsFolder& folder) {
  NameMatch out;
  std::set<std::string, std::less<>> left;
  for (std::string& name : folder.names()) {
    if (!model.is_constant(name)) {
      left.insert(std::move(name));
    }
  }
  for_each_parameter(model, [&](const Module&, const Parameter&, const Slot& slot) {
    const std::string found = file_name(model, folder, slot.name);
    (found.empty() ? out.missing : out.matched).push_back(slot.name);
    left.erase(found);
  });
  out.unexpected.assign(left.begin(), left.end());
  add_nearest_names(out.missing, out.unexpected, out.nearest);
  add_nearest_names(out.unexpected, out.missing, out.nearest);
  return out;
}

std::vector<std::string> with_nearest(const std::vector<std::string>& names,
                                      const NameMatch& match) {
  std::vector<std::string> out;
  out.reserve(names.size());
  for (const std::string& name : names) {
    const auto it = match.nearest.find(name);
    out.push_back(it == match.nearest.end() ? name
                                            : fmt::format("{} (nearest: {})", name, it->second));
  }
  return out;
}

void load_weights(const Model& model, const SafetensorsFolder& folder,
                  const std::vector<std::string>& names,
                  const std::function<void(SlotId, const Tensor&)>& put) {
  const std::set<std::string_view> wanted(names.begin(), names.end());
  for_each_parameter(model, [&](const Module&, const Parameter& p, const Slot& slot) {
    if (!wanted.contains(slot.name)) {
      return;
    }
    const std::string name = file_name(model, folder, slot.name);
    const Tensor value = from_file_layout(folder.read(name.empty() ? slot.name : name), p.layout);
    if (value.shape() != slot.shape) {
      throw FileError("weights",
                      "'{}' is {} in the file, the model has {}; check config.json, or draw it "
                      "anew with model.reinit",
                      slot.name, value.shape(), slot.shape);
    }
    put(p.slot, value.to(slot.dtype));
  });
}

void save_weights(const Model& model, const std::filesystem::path& folder,
                  const std::function<Tensor(SlotId)>& get, nlohmann::json config) {
  std::filesystem::create_directories(folder);
  std::vector<TensorSpec> specs;
  for_each_parameter(model, [&](const Module&, const Parameter& p, const Slot& slot) {
    Shape shape = slot.shape;
    if (p.layout == FileLayout::conv_oihw) {
      shape = {shape[0], shape[3], shape[1], shape[2]};
    }
    specs.push_back({slot.name, slot.dtype, shape});
  });
  SafetensorsWriter writer(folder / "model.safetensors", specs, {{"format", "pt"}});
  for_each_parameter(model, [&](const Module& module, const Parameter& p, const Slot& slot) {
    const Tensor value = to_file_layout(module.file_value(p, get), p.layout);
    writer.write(slot.name, {value.data(), static_cast<size_t>(value.bytes())});
  });
  writer.commit();
  config.update(model.config());
  write_file_atomically(folder / "config.json", config.dump(2) + "\n");
}

}  // namespace lithe::nn
