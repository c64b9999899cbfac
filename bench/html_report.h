// The report as one HTML page that needs nothing else. Styles and pictures are in it. It loads and
// runs nothing, and its content security policy forbids it to. Light, dark and on paper.

#ifndef RINGMASTER_BENCH_HTML_REPORT_H_
#define RINGMASTER_BENCH_HTML_REPORT_H_

#include <string>

#include "bench/result.h"

namespace ringmaster::bench {

std::string HtmlReport(const Report& report);

}  // namespace ringmaster::bench

#endif  // RINGMASTER_BENCH_HTML_REPORT_H_
