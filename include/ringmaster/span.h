// A pointer and a size. It stands in the interface where C++20 has std::span, because these headers
// are for C++17, too. Whatever std::span accepts it accepts, std::span itself included, and it
// becomes a std::span wherever one is wanted:
//
//   std::span<const ringmaster::Candidate> candidates = view.candidates;
//
// It is a type of its own, and not absl::Span, for two reasons. That one checks each index in some
// distributions, which a decision for each connection need not pay for. And it does not take a
// std::span whose elements may be written without being asked to.

#ifndef RINGMASTER_SPAN_H_
#define RINGMASTER_SPAN_H_

#include <cstddef>
#include <iterator>
#include <type_traits>
#include <utility>
#if __cplusplus >= 202002L
#include <span>
#endif

namespace ringmaster {

// Borrows the elements, and may be copied at will.
template <typename T>
class Span {
  // What an argument of type V&& is seen as. A container that is about to go shows its elements as
  // const, so that nobody writes to what is gone; a view shows them as it ever does.
  template <typename V>
  using Seen = std::conditional_t<std::is_lvalue_reference_v<V>, V, const V&>;
  template <typename V>
  using ElementOf = std::remove_pointer_t<decltype(std::data(std::declval<Seen<V>>()))>;
  // Elements of this very type, or the same but const: no base class, whose size may differ.
  template <typename V>
  using EnableIfFits = std::enable_if_t<!std::is_same_v<std::decay_t<V>, Span> &&
                                        std::is_convertible_v<ElementOf<V> (*)[], T (*)[]>>;

 public:
  using element_type = T;
  using value_type = std::remove_cv_t<T>;
  using size_type = size_t;
  using iterator = T*;
  using const_iterator = T*;

  constexpr Span() noexcept = default;
  constexpr Span(T* data, size_t size) noexcept : data_(data), size_(size) {}
  // Of an array, or of whatever has data() and size(). Implicit, as that of std::span is.
  template <typename V, typename = EnableIfFits<V>>
  constexpr Span(V&& elements) noexcept
      : data_(std::data(static_cast<Seen<V>>(elements))), size_(std::size(elements)) {}

  // As those of std::span.
  constexpr T* data() const noexcept { return data_; }
  constexpr size_t size() const noexcept { return size_; }
  constexpr bool empty() const noexcept { return size_ == 0; }

  // Unchecked, as those of a pointer are.
  constexpr T& operator[](size_t i) const noexcept { return data_[i]; }
  constexpr T& front() const noexcept { return data_[0]; }
  constexpr T& back() const noexcept { return data_[size_ - 1]; }

  // For loops over its elements.
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }

 private:
  T* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace ringmaster

#if __cplusplus >= 202002L
// Its elements outlive it, so a std::span may be made of one that is about to go.
template <typename T>
inline constexpr bool std::ranges::enable_borrowed_range<ringmaster::Span<T>> = true;
template <typename T>
inline constexpr bool std::ranges::enable_view<ringmaster::Span<T>> = true;
#endif

#endif  // RINGMASTER_SPAN_H_
