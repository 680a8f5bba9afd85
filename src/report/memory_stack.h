// Bytes by class as a stack: order, names, unit and bar, the same in every chart.
#pragma once

#include <cstdint>
#include <string>

#include "report/memory_report.h"

namespace lithe {

// What stays for the whole step lies at the bottom, what comes and goes on top of it.
inline constexpr MemoryClass kStackOrder[kMemoryClassCount] = {
    MemoryClass::context,      MemoryClass::weights,     MemoryClass::adapters,
    MemoryClass::optimizer,    MemoryClass::kv_cache,    MemoryClass::saved_activations,
    MemoryClass::gradients,    MemoryClass::temporaries, MemoryClass::workspace,
    MemoryClass::communication};

// "saved activations".
std::string class_label(MemoryClass cls);

// The key of a chart's legend, with the colour of the class.
std::string class_key(MemoryClass cls);

int64_t total_bytes(const MemoryByClass& bytes);

struct AxisUnit {
  const char* name;
  double bytes;
};

// The unit of an axis that ends at `peak` bytes.
AxisUnit axis_unit(int64_t peak);

double percent(double part, double whole);  // 0 of nothing

// The predicted peak by class, with alignment and gaps, as a bar whose full width is `widest`
// bytes.
std::string stacked_bar(const MemoryReport& report, int64_t widest);

}  // namespace lithe
