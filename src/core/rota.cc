#include "core/rota.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace ringmaster::core {

void Rota::Deal() {
  Ahead ahead = Ahead::kNobody;
  size_t others = 0;
  advanced_.clear();
  for (const uint32_t index : order_) {
    Source& source = books_.sources[index];
    bool advanced = dealer_.Deal(source);
    advanced |= asker_.AskForMore(source, ahead);
    if (books_.config.gate != nullptr && source.lack.credit()) {
      const bool soon = asker_.GetsCreditSoon(source);
      ahead = std::max(ahead, soon ? Ahead::kGetsCreditSoon : Ahead::kStarves);
    }
    if (advanced) {
      advanced_.push_back(index);
    } else {
      order_[others++] = index;
    }
  }
  // Of those that have advanced, the first could have the most.
  const auto first = advanced_.empty() ? advanced_.end() : std::next(advanced_.begin());
  std::rotate_copy(advanced_.begin(), first, advanced_.end(),
                   order_.begin() + static_cast<ptrdiff_t>(others));
}

}  // namespace ringmaster::core
