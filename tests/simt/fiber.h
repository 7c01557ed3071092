#pragma once
// A call stack of its own, which can be left in the middle of a function and come back to: one for each CUDA thread of
// a block. Switching by hand takes nanoseconds; swapcontext, which other processors than x86-64 get here, asks the
// system for the signal mask each time and takes twenty times as long.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <new>

#if !defined(__x86_64__) && !defined(SIMT_UCONTEXT)
#define SIMT_UCONTEXT
#endif
#ifdef SIMT_UCONTEXT
#include <ucontext.h>
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

#ifndef SIMT_UCONTEXT
// Saves what a function must not change, and the place to come back to, on one stack; takes them from the other. Ends
// with a jump, because a processor would mispredict a return that does not belong to the last call.
extern "C" void simt_switch(void** from, void* to);
asm(R"(
.text
.hidden simt_switch
.globl simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  popq %rcx
  jmp *%rcx
.size simt_switch, .-simt_switch
)");
#endif

namespace simt {

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStackBytes = size_t{1} << 18; // red zones make frames several times as large
#else
constexpr size_t kStackBytes = size_t{1} << 16;
#endif

// A thread of control: a stack of its own, or, made without one, the stack of whoever switches away from it first.
class Fiber {
 public:
  explicit Fiber(bool own_stack = true) {
    if (!own_stack) {
      return;
    }
    void* memory = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
      throw std::bad_alloc();
    }
    own_stack_ = static_cast<char*>(memory);
    // Too deep a call ends here, not in the next stack.
    mprotect(own_stack_, static_cast<size_t>(sysconf(_SC_PAGESIZE)), PROT_NONE);
  }

  ~Fiber() {
    if (own_stack_ != nullptr) {
      munmap(own_stack_, kStackBytes);
    }
  }

  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next switch to this fiber calls main(), whatever it did before. main() begins with arrive() and never returns.
  void start(void (*main)()) {
#ifdef __SANITIZE_ADDRESS__
    ASAN_UNPOISON_MEMORY_REGION(own_stack_, kStackBytes); // the red zones of frames that were given up
    stack_ = own_stack_;
    stack_bytes_ = kStackBytes;
    fake_stack_ = nullptr;
#endif
#ifdef SIMT_UCONTEXT
    getcontext(&context_);
    context_.uc_stack.ss_sp = own_stack_;
    context_.uc_stack.ss_size = kStackBytes;
    makecontext(&context_, main, 0);
#else
    // As simt_switch leaves a stack: six registers, then where to go on, at a multiple of 16 so that main() finds the
    // stack as after a call.
    void** top = reinterpret_cast<void**>(own_stack_ + kStackBytes) - 2;
    top[1] = nullptr;
    top[0] = reinterpret_cast<void*>(main);
    for (int i = 1; i <= 6; ++i) {
      top[-i] = nullptr;
    }
    context_ = top - 6;
#endif
  }

  // Goes on where `other` was left. Returns when somebody switches to this fiber, which is the one that runs.
  void switch_to(Fiber& other, bool for_good = false) {
#ifdef __SANITIZE_ADDRESS__
    left_ = this;
    __sanitizer_start_switch_fiber(for_good ? nullptr : &fake_stack_, other.stack_, other.stack_bytes_);
#else
    static_cast<void>(for_good);
#endif
#ifdef SIMT_UCONTEXT
    swapcontext(&context_, &other.context_);
#else
    simt_switch(&context_, other.context_);
#endif
    arrive();
  }

  void arrive() {
#ifdef __SANITIZE_ADDRESS__
    __sanitizer_finish_switch_fiber(fake_stack_, &left_->stack_, &left_->stack_bytes_);
#endif
  }

 private:
  char* own_stack_ = nullptr;
#ifdef SIMT_UCONTEXT
  ucontext_t context_;
#else
  void* context_ = nullptr; // stack pointer
#endif
#ifdef __SANITIZE_ADDRESS__
  const void* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  void* fake_stack_ = nullptr;
  static inline Fiber* left_ = nullptr; // for the other one to learn where its stack is
#endif
};

} // namespace simt
