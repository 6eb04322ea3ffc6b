// A command line: an engine folder, and options of the form "--name value".
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "page4d/error.h"

namespace arguments {

// Every method throws page4d::Error kUsage.
class Arguments {
 public:
  // options: those that take a value.
  Arguments(int argc, const char* const* argv, const std::set<std::string>& options) {
    for (int i = 1; i < argc; ++i) {
      const std::string name = argv[i];
      if (name.empty() || name[0] != '-') {
        folders_.push_back(name);
        continue;
      }
      std::string value;
      if (name != "--help") {
        if (options.count(name) == 0) refuse("there is no such option", name, listed(options));
        if (++i == argc) throw page4d::Error(page4d::Code::kUsage, name + " lacks its value");
        value = argv[i];
      }
      if (!values_.emplace(name, value).second) throw page4d::Error(page4d::Code::kUsage, name + " is given twice");
    }
  }

  bool has(const std::string& name) const { return values_.count(name) != 0; }

  const std::string& engines() const {
    if (folders_.size() != 1) refuse("an engine folder is needed", std::to_string(folders_.size()) + " folders", "one");
    return folders_.front();
  }

  const std::string& text(const std::string& name) const { return values_.at(name); }

  double number(const std::string& name, double otherwise, double least, double most) const {
    return has(name) ? parse(name, text(name), least, most) : otherwise;
  }

  int64_t whole(const std::string& name, int64_t otherwise, int64_t least, int64_t most) const {
    const double value =
        number(name, static_cast<double>(otherwise), static_cast<double>(least), static_cast<double>(most));
    if (value != std::floor(value)) refuse(name + " is not a whole number", text(name), "a whole number");
    return static_cast<int64_t>(value);
  }

  // The value that the option's text stands for.
  template <class Value>
  Value choice(const std::string& name, const std::map<std::string, Value>& choices, Value otherwise) const {
    if (!has(name)) return otherwise;
    const auto choice = choices.find(text(name));
    if (choice != choices.end()) return choice->second;
    std::set<std::string> names;
    for (const auto& entry : choices) names.insert(entry.first);
    refuse(name + " has no such value", text(name), listed(names));
  }

  // A number in an option's value.
  static double parse(const std::string& name, const std::string& text, double least, double most) {
    char* end = nullptr;
    const double value = std::strtod(text.c_str(), &end);
    char range[80];
    std::snprintf(range, sizeof(range), "%.12g to %.12g", least, most);
    if (text.empty() || *end != '\0') refuse(name + " is not a number", text, range);
    if (!(value >= least && value <= most)) refuse(name + " is out of range", text, range);
    return value;
  }

  [[noreturn]] static void refuse(const std::string& what, const std::string& got, const std::string& allowed) {
    throw page4d::Error(page4d::Code::kUsage, what).got(got).allowed(allowed);
  }

 private:
  static std::string listed(const std::set<std::string>& names) {
    std::string text;
    for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
    return text;
  }

  std::vector<std::string> folders_;
  std::map<std::string, std::string> values_;
};

}  // namespace arguments
