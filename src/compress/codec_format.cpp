#include "compress/codec_format.h"

#include <algorithm>
#include <charconv>

#include "tensor/core/name_hash.h"
#include "tensor/ops/elementwise.h"
#include "tensor/ops/layout.h"
#include "tensor/ops/select_largest.h"
#include "tensor/ops/top_k.h"

namespace lithe {
namespace {

// The whole text as a number of [least, most], or -1.
int number_of(std::string_view text, int least, int most) {
  int value = -1;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && value >= least && value <= most ? value : -1;
}

// "q3.4", "uq0.8"
bool parse_fixed(std::string_view text, FixedPointAttrs& out) {
  out.is_signed = !text.starts_with("uq");
  text.remove_prefix(out.is_signed ? 1 : 2);
  const size_t point = text.find('.');
  if (point == std::string_view::npos) {
    return false;
  }
  const int integer = number_of(text.substr(0, point), 0, 8);
  const int fraction = number_of(text.substr(point + 1), 0, 8);
  const int bits = integer + fraction + (out.is_signed ? 1 : 0);
  out.integer = static_cast<int8_t>(integer);
  out.fraction = static_cast<int8_t>(fraction);
  return integer >= 0 && fraction >= 0 && (bits == 4 || bits == 8);
}

// Behind a codec's name: "", "/32" or "/row".
bool parse_group(std::string_view group, QuantizeAttrs& out) {
  if (group.empty()) {
    return true;
  }
  if (group == "/row") {
    out.group = 0;
    return true;
  }
  out.group = group.front() == '/' ? number_of(group.substr(1), 1, 1 << 20) : -1;
  return out.group > 0;
}

}  // namespace

CodecFormat::CodecFormat(const std::string& text, const Options& options, std::string_view where)
    : name_(text) {
  bool known = true;
  quantize_.scale = options.scales;
  quantize_.stochastic = options.stochastic;
  if (text == "keep") {
    kind_ = Kind::keep;
  } else if (text == "uint8") {
    kind_ = Kind::fixed_point;
    fixed_.unit = true;
  } else if (text == "offload") {
    kind_ = Kind::offload;
  } else if (text == "recompute" || text == "regenerate") {
    kind_ = Kind::recompute;
  } else if (text == "derive") {
    kind_ = Kind::derive;
  } else if (text == "half") {
    kind_ = Kind::half;
  } else if (text == "bytes" || text == "bits") {
    kind_ = Kind::mask;
  } else if (text == "bf16" || text == "fp16" || text == "fp32") {
    kind_ = Kind::cast;
    cast_ = *dtype_from_name(text);
  } else if (text.starts_with("quarter")) {
    kind_ = Kind::quarter;
    known = parse_group(std::string_view(text).substr(7), quantize_);
  } else if (text.starts_with("q") || text.starts_with("uq")) {
    kind_ = Kind::fixed_point;
    known = parse_fixed(text, fixed_);
  } else if (text.starts_with("int8") || text.starts_with("int4")) {
    kind_ = Kind::quantized;
    quantize_.bits = text[3] == '4' ? 4 : 8;
    known = parse_group(std::string_view(text).substr(4), quantize_);
  } else if (text.starts_with("top") && text.find('%') != std::string::npos) {
    kind_ = Kind::top_k;
    const size_t percent = text.find('%');
    const std::string_view of = std::string_view(text).substr(percent + 1);
    share_ = number_of(std::string_view(text).substr(3, percent - 3), 1, 100);
    global_ = of == "/global";
    known = share_ > 0 && (global_ || of.empty() || of == "/row");
  } else {
    known = false;
  }
  if (!known) {
    throw UsageError(
        where,
        "'{}' is no codec; give keep, int8 or int4 (int4/32: a scale for each 32, "
        "int8/row), q3.4 or uq0.8 (bits before and behind the point, 4 or 8 with the "
        "sign), uint8, bf16, fp16, fp32, half, quarter, top10% (of each row; "
        "top10%/global: of all), recompute, offload, derive, or bytes or bits for dropout_mask",
        text);
  }
}

CodecFormat CodecFormat::of(DType dtype) const {
  const bool is_short = dtype_bits(dtype) <= 16;
  CodecFormat out = *this;
  if (kind_ == Kind::half) {
    out.kind_ = is_short ? Kind::keep : Kind::cast;
    out.cast_ = DType::bf16;
    out.name_ = is_short ? "keep" : "bf16";
  } else if (kind_ == Kind::quarter) {
    out.kind_ = Kind::quantized;
    out.quantize_.bits = is_short ? 4 : 8;
    out.name_ = fmt::format("int{}{}", out.quantize_.bits, name_.substr(7));
  }
  return out;
}

std::string CodecFormat::refusal(DType dtype, const Shape& shape) const {
  if (!is_floating(dtype)) {
    return fmt::format("is {}; codecs are for floating types", dtype_name(dtype));
  }
  if (kind_ == Kind::mask) {
    return fmt::format("is no mask; {} is for dropout_mask", name_);
  }
  if (shape.rank() < 1 && (kind_ == Kind::quantized || kind_ == Kind::top_k)) {
    return fmt::format("is a scalar; {} wants rows", name_);
  }
  const int64_t full = byte_size(dtype, shape);
  if (bytes(dtype, shape) > full) {
    return fmt::format("{} takes {} bytes, the value itself {}", name_, bytes(dtype, shape), full);
  }
  return {};
}

Shape CodecFormat::kept(const Shape& shape) const {
  const auto share = [&](int64_t of) {
    return std::max(of * share_ / 100, std::min<int64_t>(of, 1));
  };
  if (global_) {
    return {share(shape.numel())};
  }
  Shape out = shape;
  out[shape.rank() - 1] = share(shape.back());
  return out;
}

int64_t CodecFormat::bytes(DType dtype, const Shape& shape) const {
  switch (kind_) {
    case Kind::keep:
      return byte_size(dtype, shape);
    case Kind::fixed_point:
      return byte_size(fixed_point_grid(fixed_).bits == 4 ? DType::i4 : DType::i8, shape);
    case Kind::quantized:
      return quantized_bytes(shape, quantize_);
    case Kind::cast:
      return byte_size(cast_, shape);
    case Kind::top_k:
      return byte_size(dtype, kept(shape)) + byte_size(DType::i32, kept(shape));
    case Kind::offload:
    case Kind::recompute:
    case Kind::derive:
    case Kind::half:
    case Kind::quarter:
    case Kind::mask:
      break;
  }
  return 0;
}

Coded CodecFormat::encode(Graph& g, ValueId v, std::string_view site, ValueId rng) const {
  Coded out{{}, g.shape(v), g.dtype(v)};
  switch (kind_) {
    case Kind::fixed_point:
      out.parts = {fixed_point_encode(g, v, fixed_)};
      break;
    case Kind::quantized: {
      QuantizeAttrs attrs = quantize_;
      attrs.key = name_hash(site);
      const QuantizeOut coded = quantize_encode(g, v, attrs, rng);
      out.parts = {coded.codes, coded.scales};
      break;
    }
    case Kind::cast:
      // A copy where the type stays, unlike cast().
      out.parts = {g.emit(cast_op, {v}, CastAttrs{cast_})};
      break;
    case Kind::top_k: {
      const int64_t k = kept(out.shape).back();
      if (global_) {
        const SelectLargestOut all = select_largest(g, v, {k});
        out.parts = {all.values, all.indices};
      } else {
        const TopKOut rows = top_k(g, v, {.k = k, .by_magnitude = true});
        out.parts = {rows.values, rows.indices};
      }
      break;
    }
    case Kind::keep:
    case Kind::offload:
    case Kind::recompute:
    case Kind::derive:
    case Kind::half:
    case Kind::quarter:
    case Kind::mask:
      throw GraphError("codec", "{} stores nothing of its own", name_);
  }
  return out;
}

ValueId CodecFormat::decode(Graph& g, const Coded& coded) const {
  switch (kind_) {
    case Kind::fixed_point:
      return fixed_point_decode(g, coded.parts[0], fixed_, coded.dtype);
    case Kind::quantized:
      return quantize_decode(g, {coded.parts[0], coded.parts[1]}, quantize_, coded.dtype);
    case Kind::cast:
      return g.emit(cast_op, {coded.parts[0]}, CastAttrs{coded.dtype});
    case Kind::top_k:
      if (global_) {
        return reshape(g,
                       g.emit(top_k_grad_op, {coded.parts[0], coded.parts[1]},
                              TopKGradAttrs{coded.shape.numel()}),
                       coded.shape);
      }
      return g.emit(top_k_grad_op, {coded.parts[0], coded.parts[1]},
                    TopKGradAttrs{coded.shape.back()});
    case Kind::keep:
    case Kind::offload:
    case Kind::recompute:
    case Kind::derive:
    case Kind::half:
    case Kind::quarter:
    case Kind::mask:
      break;
  }
  throw GraphError("codec", "{} stores nothing of its own", name_);
}

}  // namespace lithe
