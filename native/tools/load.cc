// Owns: the load command: how long a checkpoint takes to load from the page cache, beside how long the same memory
// takes to be touched for the first time and to be filled with the files as they are, and what the process holds then.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "cpu/memory.h"
#include "cpu/thread_pool.h"
#include "engine.h"
#include "io/file.h"
#include "tools/commands.h"
#include "tools/process_memory.h"

namespace ringside::tools {
namespace {

constexpr const char* kUsage =
    "usage: ringside-tool load --model DIR [--threads N] [--isa NAME] [--pause-s N] [--rounds N] [--json]\n";
constexpr int64_t kPieceBytes = int64_t{4} << 20;

struct Request {
  LoadOptions options;
  // A system may keep freed memory at hand for some seconds, and a virtual machine's host even longer. Every measured
  // step comes after such a pause, so that all of them find the memory in one state.
  int pause_s = 10;
  int rounds = 2;
  bool json = false;
};

struct Seconds {
  double wall = 0.0;
  double processor = 0.0;  // of all threads: says more than `wall` where others use the machine too
};

class Stopwatch {
 public:
  Seconds elapsed() const {
    const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start_;
    return {wall.count(), processor_seconds() - processor_start_};
  }

 private:
  static double processor_seconds() {
    timespec time{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  }
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  double processor_start_ = processor_seconds();
};

// Loads, copies and first touches take turns, because what memory costs changes with what the machine did before.
struct Measured {
  int64_t file_bytes = 0;
  ModelInfo info;
  std::vector<Seconds> loads, copies, touches;
  ProcessMemory memory;  // with the model loaded
};

// What of a folder's weights a thread takes at once.
struct Piece {
  const InputFile* file;
  int64_t at;     // in the file
  int64_t bytes;  // kPieceBytes, at a file's end fewer
  int64_t begin;  // of all files one behind the other
};

Result<std::vector<InputFile>> open_weights(const std::string& folder) {
  std::error_code failure;
  std::vector<InputFile> files;
  for (std::filesystem::directory_iterator entry(folder, failure), end; !failure && entry != end;
       entry.increment(failure)) {
    if (entry->path().extension() != ".safetensors") continue;
    RS_TRY(InputFile file, InputFile::open(entry->path().string()));
    files.push_back(std::move(file));
  }
  if (failure) return Error{ErrorKind::kFileUnreadable, folder, "", failure.message()};
  return files;
}

std::vector<Piece> pieces_of(const std::vector<InputFile>& files) {
  std::vector<Piece> pieces;
  int64_t begin = 0;
  for (const InputFile& file : files) {
    for (int64_t at = 0; at < file.length_bytes(); at += kPieceBytes) {
      pieces.push_back({&file, at, std::min(kPieceBytes, file.length_bytes() - at), begin});
      begin += pieces.back().bytes;
    }
  }
  return pieces;
}

Status read_into_page_cache(const std::vector<Piece>& pieces) {
  std::vector<char> memory(static_cast<size_t>(kPieceBytes));
  for (const Piece& piece : pieces) RS_CHECK(piece.file->read(piece.at, memory.data(), piece.bytes));
  return Unit{};
}

// The least that any load does that owns its memory: the files' bytes go there as they are.
Result<Seconds> plain_copy(const std::vector<Piece>& pieces, int threads) {
  cpu::ThreadPool pool;
  RS_CHECK(pool.start(threads));
  const int64_t bytes = pieces.empty() ? 0 : pieces.back().begin + pieces.back().bytes;
  std::vector<Status> outcomes(pieces.size(), Unit{});
  const Stopwatch watch;
  RS_TRY(cpu::MappedMemory memory, cpu::MappedMemory::allocate(bytes, "a copy of the files"));
  pool.run(static_cast<int64_t>(pieces.size()), [&](int64_t index, int) {
    const Piece& piece = pieces[static_cast<size_t>(index)];
    void* to = static_cast<uint8_t*>(memory.data()) + piece.begin;
    outcomes[static_cast<size_t>(index)] = piece.file->read(piece.at, to, piece.bytes);
  });
  const Seconds seconds = watch.elapsed();
  for (const Status& outcome : outcomes) RS_CHECK(outcome);
  return seconds;
}

// In blocks as the loader's, one byte a page, by all threads.
Result<Seconds> first_touch(int64_t bytes, int threads) {
  constexpr int64_t kPageBytes = 4096;
  cpu::ThreadPool pool;
  RS_CHECK(pool.start(threads));
  const Stopwatch watch;
  RS_TRY(cpu::MappedMemory memory, cpu::MappedMemory::allocate(bytes, "first touch"));
  pool.run((bytes + kPieceBytes - 1) / kPieceBytes, [&](int64_t piece, int) {
    const int64_t end = std::min(bytes, (piece + 1) * kPieceBytes);
    for (int64_t at = piece * kPieceBytes; at < end; at += kPageBytes) {
      static_cast<volatile uint8_t*>(memory.data())[at] = 1;
    }
  });
  return watch.elapsed();
}

void pause(const Request& request) { std::this_thread::sleep_for(std::chrono::seconds(request.pause_s)); }

Result<Measured> measure(const Request& request) {
  Measured measured;
  RS_TRY(const std::vector<InputFile> files, open_weights(request.options.folder));
  const std::vector<Piece> pieces = pieces_of(files);
  for (const Piece& piece : pieces) measured.file_bytes += piece.bytes;
  RS_CHECK(read_into_page_cache(pieces));
  for (int round = 0; round < request.rounds; ++round) {
    pause(request);
    forget_peak_memory();
    {
      const Stopwatch watch;
      RS_TRY(const std::shared_ptr<Model> model, Model::load(request.options));
      measured.loads.push_back(watch.elapsed());
      measured.info = model->info();
      measured.memory = process_memory();
    }
    pause(request);
    RS_TRY(const Seconds copy, plain_copy(pieces, measured.info.threads));
    measured.copies.push_back(copy);
    pause(request);
    RS_TRY(const Seconds touch, first_touch(measured.info.weight_resident_bytes, measured.info.threads));
    measured.touches.push_back(touch);
  }
  return measured;
}

double median(const std::vector<Seconds>& of, double Seconds::*part) {
  std::vector<double> sorted;
  for (const Seconds& each : of) sorted.push_back(each.*part);
  std::sort(sorted.begin(), sorted.end());
  return (sorted[sorted.size() / 2] + sorted[(sorted.size() - 1) / 2]) / 2.0;
}

Seconds median(const std::vector<Seconds>& of) { return {median(of, &Seconds::wall), median(of, &Seconds::processor)}; }

void print_seconds(const char* what, const std::vector<Seconds>& of) {
  const Seconds all = median(of);
  std::printf("%-11s %.2f s, %.2f s of processor; each:", what, all.wall, all.processor);
  for (const Seconds& each : of) std::printf(" %.2f (%.2f)", each.wall, each.processor);
  std::printf("\n");
}

void print_text(const Measured& m) {
  const auto gigabytes = [](int64_t bytes) { return static_cast<double>(bytes) / 1e9; };
  std::printf("%s, %s, %s, %d threads\n", m.info.folder.c_str(), m.info.layout.c_str(), m.info.isa.c_str(),
              m.info.threads);
  std::printf("files %.2f GB, weights in memory %.2f GB\n", gigabytes(m.file_bytes),
              gigabytes(m.info.weight_resident_bytes));
  print_seconds("load", m.loads);
  print_seconds("plain copy", m.copies);
  print_seconds("first touch", m.touches);
  const Seconds load = median(m.loads);
  const Seconds copy = median(m.copies);
  const Seconds touch = median(m.touches);
  const auto print_ratio = [&](const char* what, const Seconds& least) {
    std::printf("%-11s %.2f, of processor seconds %.2f\n", what, load.wall / least.wall,
                load.processor / least.processor);
  };
  print_ratio("to a copy", copy);
  print_ratio("to touching", touch);
  std::printf("peak memory %.2f GB; held: %.2f GB of its own, %.3f GB of mapped files\n",
              gigabytes(m.memory.peak_bytes), gigabytes(m.memory.anonymous_bytes), gigabytes(m.memory.file_bytes));
}

void print_json(const Measured& m) {
  const Seconds load = median(m.loads);
  const Seconds copy = median(m.copies);
  const Seconds touch = median(m.touches);
  std::printf(
      "{\"fileBytes\":%lld,\"weightBytes\":%lld,\"threads\":%d,\"loadSeconds\":%.4f,\"loadProcessorSeconds\":%.4f,"
      "\"copySeconds\":%.4f,\"copyProcessorSeconds\":%.4f,"
      "\"firstTouchSeconds\":%.4f,\"firstTouchProcessorSeconds\":%.4f,\"ratio\":%.4f,\"processorRatio\":%.4f,"
      "\"peakBytes\":%lld,\"ownBytes\":%lld,\"mappedFileBytes\":%lld}\n",
      static_cast<long long>(m.file_bytes), static_cast<long long>(m.info.weight_resident_bytes), m.info.threads,
      load.wall, load.processor, copy.wall, copy.processor, touch.wall, touch.processor, load.wall / touch.wall,
      load.processor / touch.processor, static_cast<long long>(m.memory.peak_bytes),
      static_cast<long long>(m.memory.anonymous_bytes), static_cast<long long>(m.memory.file_bytes));
}

std::optional<Request> parse_arguments(int argc, char** argv) {
  Request request;
  request.options.backend = "cpu";
  for (int i = 0; i < argc; ++i) {
    const std::string_view option = argv[i];
    if (option == "--json") {
      request.json = true;
      continue;
    }
    if (i + 1 >= argc) return std::nullopt;
    const char* value = argv[++i];
    if (option == "--model") {
      request.options.folder = value;
    } else if (option == "--isa") {
      request.options.isa = value;
    } else if (option == "--threads") {
      request.options.threads = std::atoi(value);
    } else if (option == "--rounds") {
      request.rounds = std::max(1, std::atoi(value));
    } else if (option == "--pause-s") {
      request.pause_s = std::atoi(value);
    } else {
      return std::nullopt;
    }
  }
  return request.options.folder.empty() ? std::nullopt : std::optional<Request>(std::move(request));
}

}  // namespace

int run_load(int argc, char** argv) {
  const std::optional<Request> request = parse_arguments(argc, argv);
  if (!request) {
    std::fputs(kUsage, stderr);
    return 2;
  }
  const Result<Measured> measured = measure(*request);
  if (!measured.ok()) {
    std::fprintf(stderr, "%s\n", measured.error().message().c_str());
    return 1;
  }
  request->json ? print_json(measured.value()) : print_text(measured.value());
  return 0;
}

}  // namespace ringside::tools
