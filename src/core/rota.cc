#include "core/rota.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace ringmaster::core {

void Rota::Deal() {
  Ahead ahead = Ahead::kNobody;
  size_t unserved = 0;
  served_.clear();
  for (const uint32_t index : turns_) {
    Source& source = books_.sources[index];
    bool served = dealer_.Deal(source);
    served |= asker_.AskForMore(source, ahead);
    if (books_.config.gate != nullptr && source.lack.credit()) {
      const bool soon = asker_.GetsCreditSoon(source);
      ahead = std::max(ahead, soon ? Ahead::kGetsCreditSoon : Ahead::kStarves);
    }
    if (served) {
      served_.push_back(index);
    } else {
      turns_[unserved++] = index;
    }
  }
  // Of those who were served, the first could have the most.
  const auto first = served_.empty() ? served_.end() : std::next(served_.begin());
  std::rotate_copy(served_.begin(), first, served_.end(),
                   turns_.begin() + static_cast<ptrdiff_t>(unserved));
}

}  // namespace ringmaster::core
