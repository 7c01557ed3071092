// Runs CUDA kernels on the CPU: block after block, each thread of a block on a fiber that leaves at barriers and where
// lanes of a warp exchange values. Between these a thread is never interrupted, so a race is not seen as such; it shows
// as results that depend on the order in which threads take their turns, which can be chosen. A kernel that waits in a
// loop for what another thread writes never ends.
#include <link.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

#include <algorithm>
#include <exception>
#include <map>
#include <mutex>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cuda_runtime.h"
#include "fiber.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace simt {
namespace {

constexpr int kPoison = 0xff; // the bytes of a NaN, of -1, and of a bool that is neither true nor false
constexpr uint64_t kPoisonLane = ~uint64_t{0};
constexpr int kMaxThreads = 1024; // per block, as on every GPU

enum class Order { kAscending, kDescending, kRandom };
enum class State { kReady, kAtBarrier, kAtExchange, kExited };

struct Thread {
  Fiber fiber;
  uint3 index;
  State state;
  Place place; // where it waits
  // What it brings to a barrier or an exchange, and takes from it.
  bool predicate;
  const char* operation;
  unsigned mask;
  uint64_t value;
  Lanes lanes;
};

std::mutex one_launch_at_a_time; // everything below is for the launch that runs
std::vector<Thread> threads;     // of the largest block so far: their stacks are used again
int block_size;
std::vector<int64_t> turns; // of the block's threads until all of them wait
size_t turn;                // in `turns`
Thread* current;            // whose turn it is
Fiber scheduler(false);
const std::function<void()>* kernel_call;
int barrier_count; // of true predicates
Order order = Order::kAscending;
std::mt19937_64 random_numbers;
std::string error, taken_error;
std::set<std::string_view> entered; // the kernels since the order was chosen

// Who runs next: a thread goes on to the next thread itself, which takes half as many switches as by way of the
// scheduler.
Fiber& next_fiber() {
  while (turn < turns.size() && error.empty()) {
    Thread& t = threads[turns[turn++]];
    if (t.state == State::kReady) {
      current = &t;
      threadIdx = t.index;
      return t.fiber;
    }
  }
  return scheduler;
}

void thread_main() {
  current->fiber.arrive();
  try {
    (*kernel_call)();
  } catch (const std::exception& thrown) {
    error = thrown.what();
  }
  Thread& own = *current;
  own.state = State::kExited;
  own.fiber.switch_to(next_fiber(), true);
}

// The numbers from 0 to `count` in the order of their turns.
void take_turns(std::vector<int64_t>& numbers, int64_t count) {
  numbers.resize(count);
  std::iota(numbers.begin(), numbers.end(), 0);
  if (order == Order::kDescending) {
    std::reverse(numbers.begin(), numbers.end());
  } else if (order == Order::kRandom) {
    std::shuffle(numbers.begin(), numbers.end(), random_numbers);
  }
}

// The shared memory of all kernels: what this library holds for each thread of the system.
std::pair<void*, size_t> shared_memory() {
  static thread_local char inside; // without a use, the memory is not there yet
  inside = 0;
  std::pair<void*, size_t> found = {&inside, sizeof(inside)};
  const auto look = [](dl_phdr_info* library, size_t, void* argument) {
    auto& result = *static_cast<std::pair<void*, size_t>*>(argument);
    for (int i = 0; i < library->dlpi_phnum; ++i) {
      const char* begin = static_cast<const char*>(library->dlpi_tls_data);
      const size_t bytes = library->dlpi_phdr[i].p_memsz;
      if (library->dlpi_phdr[i].p_type == PT_TLS && begin <= result.first && result.first < begin + bytes) {
        result = {library->dlpi_tls_data, bytes};
        return 1;
      }
    }
    return 0;
  };
  dl_iterate_phdr(look, &found);
  return found;
}

// "divergent barrier in block (0, 0, 0): 32 threads at a.cu:12 (__syncthreads), 32 at a.cu:17 (__syncthreads)"
std::string describe_divergence() {
  std::map<std::string, int> waiting;
  for (int i = 0; i < block_size; ++i) {
    const Thread& t = threads[i];
    if (t.state != State::kExited) {
      const std::string file = t.place.file;
      ++waiting[file.substr(file.rfind('/') + 1) + ":" + std::to_string(t.place.line) + " (" + t.operation + ")"];
    }
  }
  std::string text = "divergent barrier in block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) +
                     ", " + std::to_string(blockIdx.z) + "):";
  for (const auto& [place, count] : waiting) {
    text += (text.back() == ':' ? " " : ", ") + std::to_string(count) + (count == 1 ? " thread" : " threads") + " at " +
            place;
  }
  return text;
}

bool same(const char* one, const char* other) {
  return one == other || std::strcmp(one, other) == 0; // mostly the same string
}

// Lets the lanes go on for which all that their mask names have come. Returns whether there are any.
bool release_lanes(int first) {
  const int last = std::min(first + warpSize, block_size);
  bool released = false;
  for (int i = first; i < last; ++i) {
    if (threads[i].state != State::kAtExchange) {
      continue;
    }
    const Thread& leader = threads[i];
    Lanes lanes;
    lanes.fill(kPoisonLane);
    bool complete = true;
    for (int j = first; j < last; ++j) {
      const Thread& t = threads[j];
      if ((leader.mask >> (j - first) & 1) == 0 || t.state == State::kExited) {
        continue;
      }
      complete =
          complete && t.state == State::kAtExchange && t.mask == leader.mask && same(t.operation, leader.operation);
      lanes[j - first] = t.value;
    }
    for (int j = first; complete && j < last; ++j) {
      if ((leader.mask >> (j - first) & 1) != 0 && threads[j].state == State::kAtExchange) {
        threads[j].lanes = lanes;
        threads[j].state = State::kReady;
        released = true;
      }
    }
  }
  return released;
}

// Lets the block go on from a barrier, or from exchanges within its warps. Returns false where nobody is left. A
// barrier that some reach on one line and some on another is divergent too, though a GPU might let it pass.
bool release_threads() {
  bool released = false;
  for (int first = 0; first < block_size; first += warpSize) {
    released = release_lanes(first) || released;
  }
  if (released) {
    return true;
  }
  const Thread* one = nullptr;
  barrier_count = 0;
  for (int i = 0; i < block_size; ++i) {
    const Thread& t = threads[i];
    if (t.state == State::kExited) {
      continue;
    }
    one = one == nullptr ? &t : one;
    if (t.state != State::kAtBarrier || t.place.line != one->place.line || !same(t.place.file, one->place.file)) {
      throw std::runtime_error(describe_divergence());
    }
    barrier_count += t.predicate ? 1 : 0;
  }
  for (int i = 0; i < block_size; ++i) {
    threads[i].state = threads[i].state == State::kAtBarrier ? State::kReady : threads[i].state;
  }
  return one != nullptr;
}

void run_block() {
  for (int i = 0; i < block_size; ++i) {
    threads[i].state = State::kReady;
    threads[i].fiber.start(thread_main);
  }
  do {
    take_turns(turns, block_size);
    turn = 0;
    scheduler.switch_to(next_fiber());
    if (!error.empty()) {
      throw std::runtime_error(error);
    }
  } while (release_threads());
}

void check_launch(const dim3& grid, const dim3& block, size_t shared_bytes) {
  const int64_t count = int64_t{block.x} * block.y * block.z;
  if (count < 1 || count > kMaxThreads || block.z > 64 || grid.x < 1 || grid.x > 0x7fffffff || grid.y < 1 ||
      grid.y > 0xffff || grid.z < 1 || grid.z > 0xffff) {
    throw std::runtime_error("invalid configuration argument");
  }
  if (shared_bytes > 0) {
    throw std::runtime_error("dynamic shared memory is not emulated");
  }
}

// Makes the calling thread wait until it has its turn again.
void wait(State state, const char* operation, Place place) {
  Thread& own = *current;
  own.state = state;
  own.operation = operation;
  own.place = place;
  own.fiber.switch_to(next_fiber());
}

} // namespace

void run(const dim3& grid, const dim3& block, size_t shared_bytes, const std::function<void()>& kernel) {
  const std::lock_guard<std::mutex> lock(one_launch_at_a_time);
  error.clear();
  try {
    check_launch(grid, block, shared_bytes);
    gridDim = grid;
    blockDim = block;
    kernel_call = &kernel;
    block_size = static_cast<int>(block.x * block.y * block.z);
    if (threads.size() < static_cast<size_t>(block_size)) {
      threads = std::vector<Thread>(block_size);
    }
    for (unsigned i = 0; i < static_cast<unsigned>(block_size); ++i) {
      threads[i].index = {i % block.x, i / block.x % block.y, i / block.x / block.y};
    }
    const auto [shared, bytes] = shared_memory();
    std::vector<int64_t> blocks;
    take_turns(blocks, int64_t{grid.x} * grid.y * grid.z);
    for (const int64_t i : blocks) {
      blockIdx = {static_cast<unsigned>(i % grid.x), static_cast<unsigned>(i / grid.x % grid.y),
                  static_cast<unsigned>(i / grid.x / grid.y)};
      std::memset(shared, kPoison, bytes);
      run_block();
    }
  } catch (const std::exception& thrown) {
    error = thrown.what();
  }
}

void enter(const char* kernel) {
  entered.insert(kernel);
}

bool take_error() {
  taken_error = std::exchange(error, std::string());
  return !taken_error.empty();
}

const char* error_text() {
  return taken_error.c_str();
}

int sync_block(bool predicate, Place place) {
  current->predicate = predicate;
  wait(State::kAtBarrier, "__syncthreads", place);
  return barrier_count;
}

const Lanes& exchange(unsigned mask, uint64_t value, const char* operation, Place place) {
  if ((mask >> lane() & 1) == 0) {
    throw std::runtime_error(std::string(operation) + ": the calling lane is not in the mask");
  }
  Thread& own = *current;
  own.mask = mask;
  own.value = value;
  wait(State::kAtExchange, operation, place);
  return own.lanes;
}

int lane() {
  return static_cast<int>((threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x) % warpSize;
}

} // namespace simt

// Chosen from Python: 0 ascending, 1 descending, 2 random at each barrier.
extern "C" __attribute__((visibility("default"))) void simt_set_order(int order, uint64_t seed) {
  const std::lock_guard<std::mutex> lock(simt::one_launch_at_a_time);
  simt::order = static_cast<simt::Order>(order);
  simt::random_numbers.seed(seed);
  simt::entered.clear();
}

// The names of the kernels that have run since then, separated by spaces.
extern "C" __attribute__((visibility("default"))) const char* simt_kernels() {
  static std::string names;
  const std::lock_guard<std::mutex> lock(simt::one_launch_at_a_time);
  names.clear();
  for (const std::string_view name : simt::entered) {
    names.append(name) += ' ';
  }
  return names.c_str();
}

// What the kernels' host code asks of torch about CUDA. These definitions come before torch's own, because the library
// is linked with -Bsymbolic: a CPU has no stream, and no device to be chosen.
extern "C" {
AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  *guard = nullptr;
  return AOTI_TORCH_SUCCESS;
}

AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) {
  return AOTI_TORCH_SUCCESS;
}
}
