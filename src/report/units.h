// Numbers as people read them: bytes, durations, counts, shares.
#pragma once

#include <cstdint>
#include <string>

namespace lithe {

// Binary units with two decimals: "512 B", "1.50 KiB", "82.44 MiB", "7.01 GiB"; keeps the sign.
std::string format_bytes(int64_t bytes);

// Always MiB, so that a column can be compared at a glance: "1693.96 MiB".
std::string format_mebibytes(int64_t bytes);

// Two units at most: "0.35s", "12s", "3m20s", "1h02m", "2d03h"; "?" when not finite or negative.
std::string format_duration(double seconds);

// Short counts for axes and rates: 950 -> "950", 12500 -> "12.5k", 3000000 -> "3M".
std::string format_count(double count);

// Four significant digits, whole from 1000 on, exponents unpadded: "0.4312", "60000", "3e-5",
// "NaN".
std::string format_number(double value);

// "41.2 %"; "–" when `whole` is zero.
std::string format_share(int64_t part, int64_t whole);

// Number of terminal columns of UTF-8 text, counting one for a code point.
int display_width(const std::string& text);

}  // namespace lithe
