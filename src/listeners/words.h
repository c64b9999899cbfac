// What two generations say to each other, over a Unix socket that keeps messages apart
// (SOCK_SEQPACKET). Both may be of different versions of the library, so a word says which it is
// of.
//
//   successor                          predecessor
//     kAsk          ────────────────►
//                   ◄────────────────    kControl    with the socket that is asked at
//                   ◄────────────────    kListeners  with the listeners and their names
//     … starts its workers, and accepts …
//     kServing      ────────────────►
//                   ◄────────────────    kYours: it asks nobody any more, and is about to end
//                   ◄────────────────    the end of the stream: it accepts no more
//
// The predecessor may say kRefused instead of any of its words, and ends the stream then. If the
// stream ends without that, it has ended itself.
//
// Nothing here waits. What comes is not trusted: it may be of any length, and may bring descriptors
// that nobody has asked for.

#ifndef RINGMASTER_SRC_LISTENERS_WORDS_H_
#define RINGMASTER_SRC_LISTENERS_WORDS_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "ringmaster/listeners.h"

namespace ringmaster::internal {

enum class Say : uint32_t { kAsk = 1, kControl, kListeners, kServing, kYours, kRefused };

// Why somebody is refused.
enum class Refusal : uint32_t {
  kForeign = 1,  // it is another user's
  kBusy,         // somebody else is about to take over
  kTooLate,      // it has not served in time
  kUnable,       // the listeners cannot be sent now
};

struct Word {
  Say say = Say::kAsk;
  uint32_t number = 0;  // kListeners: how many; kRefused: a Refusal
  int64_t process = 0;  // who says it
  uint64_t device = 0;  // kControl: of the file at the path
  uint64_t inode = 0;   // the same
};

inline constexpr size_t kNameBytesMax = 255;

// Returns 0 or an errno. `text` follows the word.
int SendWord(int fd, const Word& word, std::string_view text = {}, std::span<const int> fds = {});

struct Heard {
  Word word;
  std::string text;
  std::vector<NamedListener> fds;  // without names
};

// What has come next. Returns 0, or EAGAIN when nothing has; EPIPE when the other side has ended;
// EBADMSG when it says something else; EMFILE when descriptors came that this process cannot hold.
// With `takes_fds` false, descriptors never reach this process, and a word that brings some is
// EBADMSG. Nothing stays open but what `heard` has.
int HearWord(int fd, bool takes_fds, Heard& heard);

// Names as the text of kListeners, and back. Back: false if there are not `count` names.
std::string JoinNames(std::span<const OfferedListener> listeners);
bool SplitNames(std::string_view text, size_t count, std::vector<std::string>& names);

}  // namespace ringmaster::internal

#endif  // RINGMASTER_SRC_LISTENERS_WORDS_H_
