// torch's parallel_for on plain threads. ThreadSanitizer does not know how libgomp's threads wait for each other and
// would report every region as a race; pthread_create and pthread_join it knows. To be preloaded, see CONTRIBUTING.md:
//   g++ -O1 -g -fPIC -shared -fsanitize=thread -o threads.so tests/sanitize/threads.cpp
#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

constexpr int64_t kThreads = 3; // more than one, and no divisor of anything

extern "C" int32_t torch_get_num_threads(uint32_t* threads) {
  *threads = kThreads;
  return 0;
}

extern "C" int32_t torch_parallel_for(int64_t begin, int64_t end, int64_t grain, void (*body)(int64_t, int64_t, void*),
                                      void* context) {
  const int64_t most = (end - begin + grain - 1) / std::max<int64_t>(grain, 1), count = std::min(most, kThreads);
  std::vector<std::thread> threads;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t first = begin + (end - begin) * i / count, last = begin + (end - begin) * (i + 1) / count;
    threads.emplace_back(body, first, last, context);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  return 0;
}
