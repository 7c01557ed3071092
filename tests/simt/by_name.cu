// Launches the kernels of benchmarks/peers/two_kernel_tvl1.cu by name, as a CUDA driver does. test_cupy_peer.py puts
// this text behind theirs.
#include <functional>
#include <map>
#include <string>
#include <utility>

namespace {

using Call = std::function<void(void**)>; // takes the addresses of the arguments

template <typename... Parameters, size_t... i>
Call unpacked(void (*kernel)(Parameters...), std::index_sequence<i...>) {
  return [kernel](void** arguments) { kernel(*static_cast<Parameters*>(arguments[i])...); };
}

template <typename... Parameters>
std::pair<Call, size_t> callable(void (*kernel)(Parameters...)) {
  return {unpacked(kernel, std::index_sequence_for<Parameters...>()), sizeof...(Parameters)};
}

const std::map<std::string, std::pair<Call, size_t>> kernels = {
    {"resize", callable(resize)},
    {"scale", callable(scale)},
    {"centred_gradient", callable(centred_gradient)},
    {"warp", callable(warp)},
    {"estimate_flow", callable(estimate_flow)},
    {"estimate_duals", callable(estimate_duals)},
};

} // namespace

// Returns what went wrong, or null.
extern "C" __attribute__((visibility("default"))) const char* launch_by_name(const char* name, const unsigned* grid,
                                                                             const unsigned* block, void** arguments,
                                                                             size_t count) {
  const auto found = kernels.find(name);
  if (found == kernels.end() || found->second.second != count) {
    return "there is no such kernel with as many parameters";
  }
  simt::run(dim3(grid[0], grid[1]), dim3(block[0], block[1]), 0, [&] { found->second.first(arguments); });
  return simt::take_error() ? simt::error_text() : nullptr;
}
