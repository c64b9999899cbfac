// What the figures are called where people read them, how they are written, and which way is
// better. All that is the same in the terminal and in the page.

#ifndef RINGMASTER_BENCH_MEASURES_H_
#define RINGMASTER_BENCH_MEASURES_H_

#include <cstdint>
#include <span>
#include <string>

#include "bench/result.h"

namespace ringmaster::bench {

enum class Better : uint8_t { kMore, kLess, kNeither };

struct Measure {
  Figure Figures::*figure;
  const char* title;   // in a line: "connections per second"
  const char* column;  // above a column of a terminal, at most seven characters
  std::string (*format)(double);
  Better better;
};

// All that are shown, in the order to show them.
std::span<const Measure> Measures();

const Measure& MeasureOf(Figure Figures::*figure);

// Which way is better under one workload. An even spread is no virtue where a worker is slow. In an
// open loop all serve what is offered, or fall behind.
Better BetterUnder(const WorkloadText& workload, const Measure& measure);

// What decides a question, the most telling first.
std::span<Figure Figures::*const> DecidingFigures(Question question);

// What is answered under a workload: connections, each with its one request, or the requests of
// clients that stay.
struct Answered {
  const char* what;  // in a sentence: "connections"
  Figure Figures::*rate;
  Figure Figures::*p50;
  Figure Figures::*p99;
  Figure Figures::*p999;
};
const Answered& AnsweredUnder(Question question);

// The question in words.
const char* QuestionText(Question question);

// "2 of 9 repetitions"; empty where there are none.
std::string FellBehindText(const Result& result);

// How mechanisms are written where there is little room. Where all of ringmaster's have the same
// intake, handoff and host, naming the policy is enough.
class Names {
 public:
  explicit Names(const Report& report);

  static bool IsOurs(const std::string& mechanism);

  // What `Short` leaves out: "ringmaster:POLICY/poll-accept/inbox/thread". Empty if ringmaster
  // was not measured.
  const std::string& pattern() const { return pattern_; }

  // "least-loaded", "epoll-exclusive".
  std::string Short(const std::string& mechanism) const;

  // For sentences: "ringmaster:least-loaded", "epoll-exclusive".
  std::string Clear(const std::string& mechanism) const;

 private:
  std::string suffix_;  // that all of ringmaster's have
  std::string pattern_;
};

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_MEASURES_H_
