// A command line: words, and options of the form "--name value".
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "page4d/error.h"

namespace arguments {

class Arguments {
 public:
  // options: those that take a value; flags: those that take none. "--name=value" does, too.
  // Throws page4d::Error kUsage: an option that is not among them, given twice, or without its value.
  Arguments(int argc, const char* const* argv, const std::vector<std::string>& options,
            const std::vector<std::string>& flags = {"--help"}) {
    for (int i = 1; i < argc; ++i) {
      std::string name = argv[i];
      if (name.size() < 2 || name[0] != '-') {
        words_.push_back(name);
        continue;
      }
      const size_t equals = name.find('=');
      std::string value = equals == std::string::npos ? "" : name.substr(equals + 1);
      name = name.substr(0, equals);
      const bool is_flag = contains(flags, name);
      if (!is_flag && !contains(options, name)) refuse("there is no such option", name, joined(options, flags));
      if (is_flag && equals != std::string::npos) refuse(name + " takes no value", value, name);
      if (!is_flag && equals == std::string::npos) {
        if (++i == argc) throw page4d::Error(page4d::Code::kUsage, name + " lacks its value");
        value = argv[i];
      }
      if (!values_.emplace(name, value).second) throw page4d::Error(page4d::Code::kUsage, name + " is given twice");
    }
  }

  bool has(const std::string& name) const { return values_.count(name) != 0; }

  // The words, which must be as many as there are names: "ENGINES".
  const std::vector<std::string>& words(const std::vector<std::string>& names) const {
    if (words_.size() != names.size()) {
      std::string got;
      for (const std::string& word : words_) got += (got.empty() ? "" : " ") + word;
      refuse("the command line has the wrong number of words", got.empty() ? "none" : got, joined(names, {}, " "));
    }
    return words_;
  }

  std::string text(const std::string& name, const std::string& otherwise) const {
    return has(name) ? values_.at(name) : otherwise;
  }

  // Throws page4d::Error kUsage: not a number, or out of range.
  double number(const std::string& name, double otherwise, double least, double most) const {
    return has(name) ? parse(name, values_.at(name), least, most) : otherwise;
  }

  int64_t whole(const std::string& name, int64_t otherwise, int64_t least, int64_t most) const {
    if (!has(name)) return otherwise;
    const double value = parse(name, values_.at(name), static_cast<double>(least), static_cast<double>(most));
    if (value != std::floor(value))
      refuse(name + " is not a whole number", values_.at(name),
             range(static_cast<double>(least), static_cast<double>(most)));
    return static_cast<int64_t>(value);
  }

  // The value that the given word stands for.
  template <class Value>
  Value choice(const std::string& name, const std::vector<std::pair<std::string, Value>>& choices,
               Value otherwise) const {
    if (!has(name)) return otherwise;
    std::string allowed;
    for (const auto& [word, value] : choices) {
      if (word == values_.at(name)) return value;
      allowed += (allowed.empty() ? "" : ", ") + word;
    }
    refuse(name + " has no such value", values_.at(name), allowed);
  }

  // A number in an option's value.
  static double parse(const std::string& name, const std::string& word, double least, double most) {
    char* end = nullptr;
    const double value = std::strtod(word.c_str(), &end);
    if (word.empty() || *end != '\0') refuse(name + " is not a number", word, range(least, most));
    if (!(value >= least && value <= most)) refuse(name + " is out of range", word, range(least, most));
    return value;
  }

  [[noreturn]] static void refuse(const std::string& what, const std::string& got, const std::string& allowed) {
    throw page4d::Error(page4d::Code::kUsage, what).got(got).allowed(allowed);
  }

 private:
  static bool contains(const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  }

  static std::string joined(const std::vector<std::string>& first, const std::vector<std::string>& then,
                            const char* between = ", ") {
    std::string text;
    for (const auto* names : {&first, &then})
      for (const std::string& name : *names) text += (text.empty() ? "" : between) + name;
    return text;
  }

  static std::string range(double least, double most) {
    char text[80];
    std::snprintf(text, sizeof(text), "%.12g to %.12g", least, most);
    return text;
  }

  std::vector<std::string> words_;
  std::map<std::string, std::string> values_;
};

}  // namespace arguments
