// Owners of the libraries' handles and descriptors. Device-only.
#pragma once

#include <memory>
#include <type_traits>

namespace lithe::device {

template <auto kDestroy>
struct Destroy {
  template <typename T>
  void operator()(T* object) const {
    kDestroy(object);
  }
};

// A handle, which is a pointer type, given back by kDestroy(handle).
template <typename Handle, auto kDestroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<kDestroy>>;

}  // namespace lithe::device
