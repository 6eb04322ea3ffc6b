// Messages of libraries reach the logs of the pipelines that they are about, from every thread.
#include <atomic>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "log.h"
#include "page4d/pipeline.h"
#include "support/folder.h"

using namespace page4d;

namespace {

const std::filesystem::path kFolder = "engines of test_log";

// What a log was given.
struct Messages {
  std::mutex mutex;
  std::vector<std::pair<LogLevel, std::string>> entries;

  LogFunction function() {
    return [this](LogLevel level, const char* message) {
      const std::lock_guard lock(mutex);
      entries.emplace_back(level, message);
    };
  }
};

void test_a_threads_scope_gets_what_is_said_on_it() {
  Messages first_messages, second_messages;
  const Log first(first_messages.function()), second(second_messages.function()), none(nullptr);
  {
    const LogScope scope(first);
    write_to_logs(LogLevel::kWarning, "slow");
    {
      const LogScope inner(second);
      write_to_logs(LogLevel::kError, "broken");
    }
    const LogScope silent(none);
    write_to_logs(LogLevel::kError, "of a pipeline that wants no messages");
  }
  CHECK(first_messages.entries == (std::vector<std::pair<LogLevel, std::string>>{{LogLevel::kWarning, "slow"}}));
  CHECK(second_messages.entries == (std::vector<std::pair<LogLevel, std::string>>{{LogLevel::kError, "broken"}}));
}

void test_a_librarys_own_threads_reach_every_log() {
  Messages first_messages, second_messages;
  write_to_logs(LogLevel::kInfo, "nobody listens");
  {
    const Log first(first_messages.function());
    {
      const Log second(second_messages.function());
      const LogScope scope(first);
      std::thread([] { write_to_logs(LogLevel::kInfo, "to both"); }).join();
    }
    write_to_logs(LogLevel::kInfo, "to one");
  }
  write_to_logs(LogLevel::kInfo, "nobody listens");
  CHECK(first_messages.entries.size() == 2 && second_messages.entries.size() == 1);
  CHECK_TEXT(first_messages.entries[1].second, "to one");
}

void test_what_a_log_throws_is_swallowed() {
  Messages messages;
  const Log throws([](LogLevel, const char*) { throw std::runtime_error("the disk is full"); });
  const Log after(messages.function());
  write_to_logs(LogLevel::kInfo, "to both");
  throws.write(LogLevel::kInfo, "to one");
  CHECK(messages.entries.size() == 1);
}

// Logs come and go while messages are written: none is called after its end.
void test_logs_end_while_messages_come() {
  std::atomic<bool> stopped{false};
  std::vector<std::thread> writers;
  for (int i = 0; i < 2; ++i)
    writers.emplace_back([&] {
      while (!stopped) {
        write_to_logs(LogLevel::kInfo, "message");
        std::this_thread::yield();
      }
    });
  int64_t calls = 0;
  for (int i = 0; i < 200 || calls == 0; ++i) {
    std::atomic<int64_t> own{0};
    bool is_there = true;
    {
      const Log log([&](LogLevel, const char*) {
        CHECK(is_there);
        ++own;
      });
      std::this_thread::yield();
    }
    is_there = false;
    calls += own;
  }
  stopped = true;
  for (std::thread& writer : writers) writer.join();
}

void test_a_pipeline_says_what_computes_and_warns() {
  write_folder(kFolder, plan_named("pi3"));
  Messages messages;
  Options options;
  options.backend = Backend::kTest;
  options.log = messages.function();
  options.threads = 2;
  options.plugin_library = "libpage4d_plugins.so";
  const Pipeline pipeline = Pipeline::load(kFolder.string(), options);
  CHECK(pipeline.warnings().size() == 2 && messages.entries.size() == 3);
  CHECK(messages.entries[0].first == LogLevel::kInfo);
  CHECK_TEXT(messages.entries[0].second, kFolder.string() + ": checksums in place of a network");
  for (size_t i = 0; i < 2; ++i) {
    CHECK(messages.entries[i + 1].first == LogLevel::kWarning);
    CHECK_TEXT(messages.entries[i + 1].second, pipeline.warnings()[i]);
  }
  CHECK_TEXT(pipeline.warnings()[0], "Options::plugin_library has no effect: it is another backend's");
  CHECK_TEXT(pipeline.warnings()[1], "Options::threads has no effect: it is another backend's");
}

// A pipeline that does not load leaves no log behind.
void test_a_refused_pipeline_ends_its_log() {
  Messages messages;
  Options options;
  options.backend = Backend::kTensorrt;
  options.log = messages.function();
  CHECK(refusal([&] { Pipeline::load(kFolder.string(), options); }) != "nothing is thrown");
  messages.entries.clear();
  write_to_logs(LogLevel::kInfo, "nobody listens");
  CHECK(messages.entries.empty());
}

}  // namespace

int main() {
  test_a_threads_scope_gets_what_is_said_on_it();
  test_a_librarys_own_threads_reach_every_log();
  test_what_a_log_throws_is_swallowed();
  test_logs_end_while_messages_come();
  test_a_pipeline_says_what_computes_and_warns();
  test_a_refused_pipeline_ends_its_log();
  std::filesystem::remove_all(kFolder);
}
