// Which callbacks of the program a thread is in. What would wait for such a callback can be refused
// then, instead of ending the process.

#ifndef RINGMASTER_SRC_C_CALLBACKS_H_
#define RINGMASTER_SRC_C_CALLBACKS_H_

namespace ringmaster::c {

// While this object lives, the calling thread is in a callback of `caller`: of a balancer, or of a
// hand-over. Only the address counts; nothing is read there.
class InCallback {
 public:
  explicit InCallback(const void* caller);
  ~InCallback();
  InCallback(const InCallback&) = delete;
  InCallback& operator=(const InCallback&) = delete;

  static bool Of(const void* caller);

 private:
  const void* const caller_;
  const InCallback* const outer_;
};

}  // namespace ringmaster::c

#endif  // RINGMASTER_SRC_C_CALLBACKS_H_
