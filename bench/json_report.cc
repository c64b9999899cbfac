#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>

#include "bench/report.h"

namespace ringmaster::bench {
namespace {

using Json = nlohmann::ordered_json;

Json FigureToJson(const Figure& figure) { return figure.has_value() ? Json(*figure) : Json(); }

Json FiguresToJson(const Figures& figures) {
  Json json = Json::object();
  for (const FigureName& name : FigureNames()) json[name.name] = FigureToJson(figures.*name.figure);
  return json;
}

// By figure, the least and the largest.
Json SpreadToJson(const Figures& lows, const Figures& highs) {
  Json json = Json::object();
  for (const FigureName& name : FigureNames()) {
    const Figure& low = lows.*name.figure;
    const Figure& high = highs.*name.figure;
    json[name.name] = low.has_value() && high.has_value() ? Json::array({*low, *high}) : Json();
  }
  return json;
}

// By figure, what each repetition gave: whoever doubts the summary can make his own.
Json RunsToJson(const std::vector<Figures>& runs) {
  Json json = Json::object();
  for (const FigureName& name : FigureNames()) {
    Json values = Json::array();
    bool any = false;
    for (const Figures& run : runs) {
      values.push_back(FigureToJson(run.*name.figure));
      any = any || (run.*name.figure).has_value();
    }
    if (any) json[name.name] = std::move(values);
  }
  return json;
}

Json ContextToJson(const Context& context) {
  return {{"program", context.program},
          {"commit", context.commit},
          {"date", context.date},
          {"kernel", context.kernel},
          {"cpus", context.cpus},
          {"cpus_allowed", context.usable_cpus()},
          {"cpu_model", context.cpu_model},
          {"governor", context.governor},
          {"mitigations", context.mitigations},
          {"liburing", context.liburing},
          {"ring_flags", context.ring_flags},
          {"compiler", context.compiler},
          {"build_flags", context.build_flags},
          {"command", context.command},
          {"seed", context.seed},
          {"seconds", context.seconds},
          {"warm_up_seconds", context.warm_up_seconds},
          {"hogs", context.hogs},
          {"load_before", context.load_before}};
}

Json ResultToJson(const Result& result) {
  Json json = {{"mechanism", result.mechanism}, {"workload", result.workload},
               {"transport", result.transport}, {"pinned", result.pinned},
               {"workers", result.workers},     {"repetitions", result.repetitions},
               {"seconds", result.seconds}};
  json["skipped"] = result.skipped.empty() ? Json() : Json(result.skipped);
  json["median"] = FiguresToJson(result.median);
  json["ratio_to_epoll_exclusive"] = FiguresToJson(result.ratio);
  json["shares"] = result.shares.empty() ? Json() : Json(result.shares);
  json["spread"] = SpreadToJson(result.low, result.high);
  json["ratio_spread"] = SpreadToJson(result.ratio_low, result.ratio_high);
  json["generator_limited"] = result.generator_limited();
  json["fell_behind"] = result.fell_behind_count;
  if (!result.order.empty()) json["order"] = result.order;
  for (const ConnectionsAt& at : result.over_time) {
    json["connections_over_time"].push_back({{"seconds", at.seconds}, {"by_worker", at.by_worker}});
  }
  json["runs"] = RunsToJson(result.runs);
  return json;
}

}  // namespace

std::string JsonReport(const Report& report) {
  Json json = {{"schema_version", 1}, {"context", ContextToJson(report.context)}};
  json["results"] = Json::array();
  for (const Result& result : report.results) json["results"].push_back(ResultToJson(result));
  // Of the command line and of what the kernel calls the CPU not everything need be UTF-8.
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace ringmaster::bench
