// The predecessor's side of a hand-over: a thread that gives the listeners to whoever asks.

#ifndef RINGMASTER_SRC_LISTENERS_GIVING_H_
#define RINGMASTER_SRC_LISTENERS_GIVING_H_

#include <pthread.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "listeners/meeting_place.h"
#include "listeners/take_over.h"
#include "listeners/words.h"
#include "ring/process.h"
#include "ringmaster/listeners.h"

namespace ringmaster::internal {

// One successor at a time gets the listeners: a session.
//
//   session      what is waited for                    how it goes on
//   none         a connection at the place             somebody of this user: asking
//   asking       kAsk, for a second                    sends the listeners: starting
//   starting     kServing, for start_max               says kYours: given
//   given        nothing but Stop
//
// From asking and starting, whatever else comes ends the session, and so does the end of the time.
// Then there is none again, and this process is the generation as before. In `given` the place is
// the successor's, so nobody is heard there.
//
// Threads: Stop may be called by any, everything else is the thread's own. `mutex_` is held where
// the numbers of the listeners are used and where a successor is told that it has them, never
// during a callback.
class Giving {
 public:
  // `succession` may be null. See HandOver::Serve.
  static absl::StatusOr<std::unique_ptr<Giving>> Start(const std::string& path,
                                                       std::vector<OfferedListener> listeners,
                                                       HandOverOptions options,
                                                       std::unique_ptr<Succession> succession);
  ~Giving();
  Giving(const Giving&) = delete;
  Giving& operator=(const Giving&) = delete;

  bool Stop();

 private:
  enum class Session : uint8_t { kNone, kAsking, kStarting, kGiven };

  Giving(std::vector<OfferedListener> listeners, HandOverOptions options);

  absl::Status Open(const std::string& path, std::unique_ptr<Succession> succession);
  absl::Status StartThread();
  absl::Status BecomeGeneration(const std::string& path, std::unique_ptr<Succession> succession);
  void Abandon();

  void Run() noexcept;
  void Wait();
  bool stopped();
  void OnConnection();
  void OnWord();
  void OnTime();
  void OnPredecessor();
  void SendListeners();
  void Give();
  void Refuse(int fd, Refusal reason);
  void EndSession();
  void Failed(absl::Status why);

  const uint64_t process_;
  const std::vector<OfferedListener> listeners_;
  const HandOverOptions options_;
  ring::OwnDescriptor wake_;
  bool runs_ = false;
  pthread_t thread_{};

  std::mutex mutex_;
  bool stopped_ = false;  // guarded
  bool given_ = false;    // guarded
  MeetingPlace place_;    // the thread's own from when it runs, but for the file

  Session session_ = Session::kNone;
  ring::OwnDescriptor stream_;  // to the successor
  Other successor_;
  Clock::time_point until_;
  ring::OwnDescriptor predecessor_;
};

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_LISTENERS_GIVING_H_
