// What a plan says about memory, in plain structs the planner fills, and their JSON form.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tensor/core/memory_class.h"

namespace lithe {

// A value with its place in memory. `first` and `last` are positions in the plan's order, both
// inclusive; a persistent value (weight, optimizer state) has first = -1 and last = order size.
struct PlannedValue {
  std::string name;
  int64_t bytes = 0;
  int64_t offset = 0;  // bytes from the start of the arena, or of the persistent block
  MemoryClass cls = MemoryClass::temporaries;
  int first = 0;
  int last = 0;
};

// One pass that ran, for the pass table.
struct PassRow {
  std::string name;  // "freeze"
  std::string what;  // "9 of 12 blocks"
  int64_t sites = 0;
  int64_t bytes_before = 0;  // predicted peak without the pass
  int64_t bytes_after = 0;   // predicted peak with it
  std::string note = {};
};

struct MemoryReport {
  int64_t predicted_peak_bytes = 0;  // persistent block + arena: what the allocator is asked for
  int64_t measured_peak_bytes = -1;  // -1: not measured (dry run)
  // What the driver and its libraries hold beside the peak; 0: none, or no device was opened.
  int64_t context_bytes = 0;
  int64_t persistent_bytes = 0;
  int64_t arena_bytes = 0;
  int64_t host_bytes = 0;               // of offloaded values, in host memory: no part of any peak
  MemoryByClass peak_by_class{};        // live bytes, persistent ones included, at the peak
  std::vector<MemoryByClass> timeline;  // the same at each position of the order
  std::vector<std::string> order;       // node names; "phase/..." prefixes become bands in charts
  std::vector<PlannedValue> values;
  int peak_position = 0;
  std::vector<PassRow> passes;
  std::string device;

  MemoryByClass with_context() const;  // peak_by_class, with context_bytes in its class
  // Each class's own most in the step, which need not be at the peak.
  MemoryByClass most_by_class() const;
  int64_t live_at_peak() const;  // sum of peak_by_class; the arena may be larger by gaps
};

// {"weights": bytes, ...}: all ten classes, in the order of the enum.
nlohmann::ordered_json memory_by_class_json(const MemoryByClass& bytes);

// memory.json: peaks, `memory` by class, passes, every value (name, bytes, class, offset,
// first_use, last_use), the order and the timeline as one column a class (classes never used are
// left out).
nlohmann::ordered_json to_json(const MemoryReport& report);

// Reads what to_json wrote. Throws FileError naming `where` when a key is missing or mistyped, when
// bytes are negative or their sum is over 2^59, or when a column's length is not that of the order.
MemoryReport memory_report_from_json(const nlohmann::json& json, const std::string& where);

bool alive_at_peak(const MemoryReport& report, const PlannedValue& value);

// Values alive at the peak, largest first (ties by name), at most `count`.
std::vector<const PlannedValue*> largest_at_peak(const MemoryReport& report, size_t count);

// JSON text with one line for each member and each element of an array of objects, so that large
// files stay readable; invalid UTF-8 becomes U+FFFD.
std::string dump_readable(const nlohmann::ordered_json& json);

}  // namespace lithe
