// Owns: every byte the engine reads from or writes to a disk, and the words for what went wrong with it.
// Must never: map a file (one that shrinks under a mapping kills the process), follow a link out of a given folder, or
// leave a half-written file under its final name.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "../error.h"

struct stat;

namespace ringside {

// The system calls this room makes. Tests swap single entries to make the Nth call fail; the product never does.
struct FileCalls {
  int (*open)(const char* path, int flags, mode_t mode);
  int (*fstat)(int descriptor, struct stat* out);
  ssize_t (*pread)(int descriptor, void* out, size_t count, off_t offset);
  ssize_t (*pwrite)(int descriptor, const void* data, size_t count, off_t offset);
  int (*fsync)(int descriptor);
  int (*close)(int descriptor);
  int (*rename)(const char* from, const char* to);
  int (*mkdir)(const char* path, mode_t mode);
};
FileCalls& file_calls();

// A regular file opened for reading. Its length is the one it had when it was opened.
class InputFile {
 public:
  static Result<InputFile> open(const std::string& path);
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&& other) noexcept;
  ~InputFile();

  const std::string& path() const { return path_; }
  int64_t length_bytes() const { return length_bytes_; }
  // Fills out[0..count_bytes) or fails; a file that ends before is kFileTruncated. Safe from several threads.
  Status read(int64_t offset_bytes, void* out, int64_t count_bytes) const;

 private:
  InputFile(std::string path, int descriptor, int64_t length_bytes);
  std::string path_;
  int descriptor_ = -1;
  int64_t length_bytes_ = 0;
};

// The whole of a file that is at most `limit_bytes` long; a longer one is kFileMalformed and is not read.
Result<std::string> read_text(const std::string& path, int64_t limit_bytes);

// A file that gets its name only when it is complete: written beside its place, flushed to the disk, then renamed.
class OutputFile {
 public:
  static Result<OutputFile> create(const std::string& path);
  OutputFile(OutputFile&& other) noexcept;
  OutputFile& operator=(OutputFile&&) = delete;
  ~OutputFile();  // removes what was not committed

  Status write(int64_t offset_bytes, const void* data, int64_t count_bytes);
  // Flush, rename, flush the folder. After a failed flush or rename the file is gone: a flush cannot be trusted a
  // second time. Only the failure of the last step leaves it there, and then whole.
  Status commit();

 private:
  OutputFile(std::string path, std::string temporary_path, int descriptor);
  std::string path_;
  std::string temporary_path_;
  int descriptor_ = -1;
};

Status write_file(const std::string& path, std::string_view content);

// A folder that appears complete or not at all: its files are written to path() and commit() gives it its name.
class OutputFolder {
 public:
  // kArgumentInvalid when `final_path` exists and is not an empty folder.
  static Result<OutputFolder> create(const std::string& final_path);
  OutputFolder(OutputFolder&& other) noexcept;
  OutputFolder& operator=(OutputFolder&&) = delete;
  ~OutputFolder();  // removes the folder and its files when it was not committed

  const std::string& path() const { return temporary_path_; }
  Status commit();

 private:
  OutputFolder(std::string final_path, std::string temporary_path);
  std::string final_path_;
  std::string temporary_path_;
};

// True when something of that name exists, a dangling link included.
bool path_exists(const std::string& path);

// The real path of folder/name. kFileMissing when it does not exist, kFileUnreadable when it leaves the folder through
// a link. The folder itself may be a link: the user chose it.
Result<std::string> path_inside(const std::string& folder, const std::string& name);

}  // namespace ringside
