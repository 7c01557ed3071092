#pragma once
// Memory that a CPU op needs while it runs. What the system hands out comes as pages that must be cleared first, which
// costs more than computing on them does; so it is kept for the next call.
#include <cstdint>

namespace pyaction {

class Scratch {
 public:
  // Room for `floats` floats, aligned to 64 bytes; anything may stand there. Throws where there is not enough memory.
  explicit Scratch(int64_t floats);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  float* data() const {
    return data_;
  }

 private:
  float* data_;
  int64_t bytes_;
};

} // namespace pyaction
