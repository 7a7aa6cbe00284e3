#include "io/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <random>
#include <system_error>

namespace ringside {
namespace {

int real_open(const char* path, int flags, mode_t mode) { return ::open(path, flags, mode); }
int real_fstat(int descriptor, struct stat* out) { return ::fstat(descriptor, out); }

// Linux moves at most 2 GiB a call; smaller pieces also keep a slow disk from holding a call for long.
constexpr int64_t kCallLimitBytes = int64_t{64} << 20;

std::string reason(int code) { return std::generic_category().message(code); }

Error read_error(const std::string& path, int code) {
  ErrorKind kind = ErrorKind::kFileUnreadable;
  if (code == ENOENT || code == ENOTDIR) kind = ErrorKind::kFileMissing;
  if (code == ENOMEM) kind = ErrorKind::kOutOfMemory;
  return Error{kind, path, "", reason(code)};
}

Error write_error(const std::string& path, int code) {
  return Error{code == ENOMEM ? ErrorKind::kOutOfMemory : ErrorKind::kFileWriteFailed, path, "", reason(code)};
}

std::string parent_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string without_trailing_slash(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

// Two processes, or two calls of one, must never write the same temporary name.
std::string temporary_name(const std::string& path) {
  std::random_device device;
  return path + ".tmp." + std::to_string(::getpid()) + "." + std::to_string(device());
}

// A rename is only lasting once the folder that holds the name is on the disk too.
Status flush_folder(const std::string& folder) {
  const int descriptor = file_calls().open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (descriptor < 0) return write_error(folder, errno);
  const int flushed = file_calls().fsync(descriptor);
  const int code = errno;
  file_calls().close(descriptor);
  if (flushed != 0) return write_error(folder, code);
  return Unit{};
}

// Empty or absent: true. A folder with any entry, or anything that is no folder: false.
Result<bool> is_free(const std::string& path) {
  DIR* folder = ::opendir(path.c_str());
  if (folder == nullptr) {
    if (errno == ENOENT) return !path_exists(path);
    if (errno == ENOTDIR) return false;
    return write_error(path, errno);
  }
  bool empty = true;
  while (const dirent* entry = ::readdir(folder)) {
    if (std::strcmp(entry->d_name, ".") != 0 && std::strcmp(entry->d_name, "..") != 0) empty = false;
  }
  ::closedir(folder);
  return empty;
}

void remove_folder_of_files(const std::string& path) {
  if (DIR* folder = ::opendir(path.c_str())) {
    while (const dirent* entry = ::readdir(folder)) ::unlink((path + "/" + entry->d_name).c_str());
    ::closedir(folder);
  }
  ::rmdir(path.c_str());
}

}  // namespace

FileCalls& file_calls() {
  static FileCalls calls{real_open, real_fstat, ::pread, ::pwrite, ::fsync, ::close, ::rename, ::mkdir};
  return calls;
}

InputFile::InputFile(std::string path, int descriptor, int64_t length_bytes)
    : path_(std::move(path)), descriptor_(descriptor), length_bytes_(length_bytes) {}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      length_bytes_(other.length_bytes_) {}

InputFile& InputFile::operator=(InputFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(length_bytes_, other.length_bytes_);
  return *this;
}

InputFile::~InputFile() {
  if (descriptor_ >= 0) file_calls().close(descriptor_);
}

Result<InputFile> InputFile::open(const std::string& path) {
  // The owner is there before the descriptor, which would otherwise be lost when memory runs out in between.
  InputFile file(path, -1, 0);
  // Opening a pipe would wait for a writer for ever; O_NONBLOCK changes nothing for the regular files accepted below.
  file.descriptor_ = file_calls().open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0);
  if (file.descriptor_ < 0) return read_error(path, errno);
  struct stat status;
  if (file_calls().fstat(file.descriptor_, &status) != 0) return read_error(path, errno);
  if (!S_ISREG(status.st_mode)) {
    return Error{ErrorKind::kFileUnreadable, path, "a regular file",
                 S_ISDIR(status.st_mode) ? "a folder" : "a special file"};
  }
  file.length_bytes_ = status.st_size;
  return file;
}

Status InputFile::read(int64_t offset_bytes, void* out, int64_t count_bytes) const {
  if (offset_bytes < 0 || count_bytes < 0 || offset_bytes > length_bytes_ ||
      count_bytes > length_bytes_ - offset_bytes) {
    return Error{ErrorKind::kFileTruncated, path_,
                 std::to_string(count_bytes) + " bytes at offset " + std::to_string(offset_bytes),
                 std::to_string(length_bytes_) + " bytes in all"};
  }
  char* to = static_cast<char*>(out);
  while (count_bytes > 0) {
    const size_t piece = static_cast<size_t>(std::min(count_bytes, kCallLimitBytes));
    const ssize_t got = file_calls().pread(descriptor_, to, piece, offset_bytes);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return read_error(path_, errno);
    if (got == 0) {
      return Error{ErrorKind::kFileTruncated, path_, std::to_string(length_bytes_) + " bytes, as when it was opened",
                   "the end at byte " + std::to_string(offset_bytes)};
    }
    to += got;
    offset_bytes += got;
    count_bytes -= got;
  }
  return Unit{};
}

Result<std::string> read_text(const std::string& path, int64_t limit_bytes) {
  RS_TRY(const InputFile file, InputFile::open(path));
  if (file.length_bytes() > limit_bytes) {
    return Error{ErrorKind::kFileMalformed, path, "at most " + std::to_string(limit_bytes) + " bytes",
                 std::to_string(file.length_bytes()) + " bytes"};
  }
  try {
    std::string text(static_cast<size_t>(file.length_bytes()), '\0');
    RS_CHECK(file.read(0, text.data(), file.length_bytes()));
    return text;
  } catch (const std::bad_alloc&) {
    return Error{ErrorKind::kOutOfMemory, path, std::to_string(file.length_bytes()) + " bytes", ""};
  }
}

OutputFile::OutputFile(std::string path, std::string temporary_path, int descriptor)
    : path_(std::move(path)), temporary_path_(std::move(temporary_path)), descriptor_(descriptor) {}

OutputFile::OutputFile(OutputFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_path_(std::exchange(other.temporary_path_, "")),
      descriptor_(std::exchange(other.descriptor_, -1)) {}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) file_calls().close(descriptor_);
  if (!temporary_path_.empty()) ::unlink(temporary_path_.c_str());
}

Result<OutputFile> OutputFile::create(const std::string& path) {
  std::string temporary_path = temporary_name(path);
  std::string final_path = path;
  const int descriptor = file_calls().open(temporary_path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (descriptor < 0) return write_error(path, errno);
  return OutputFile(std::move(final_path), std::move(temporary_path), descriptor);
}

Status OutputFile::write(int64_t offset_bytes, const void* data, int64_t count_bytes) {
  const char* from = static_cast<const char*>(data);
  while (count_bytes > 0) {
    const size_t piece = static_cast<size_t>(std::min(count_bytes, kCallLimitBytes));
    const ssize_t put = file_calls().pwrite(descriptor_, from, piece, offset_bytes);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return write_error(path_, errno);
    // A call that writes nothing and names no error would otherwise be asked for ever.
    if (put == 0) return write_error(path_, ENOSPC);
    from += put;
    offset_bytes += put;
    count_bytes -= put;
  }
  return Unit{};
}

Status OutputFile::commit() {
  if (file_calls().fsync(descriptor_) != 0) return write_error(path_, errno);
  if (file_calls().close(std::exchange(descriptor_, -1)) != 0) return write_error(path_, errno);
  if (file_calls().rename(temporary_path_.c_str(), path_.c_str()) != 0) return write_error(path_, errno);
  temporary_path_.clear();
  return flush_folder(parent_of(path_));
}

Status write_file(const std::string& path, std::string_view content) {
  RS_TRY(OutputFile file, OutputFile::create(path));
  RS_CHECK(file.write(0, content.data(), static_cast<int64_t>(content.size())));
  return file.commit();
}

OutputFolder::OutputFolder(std::string final_path, std::string temporary_path)
    : final_path_(std::move(final_path)), temporary_path_(std::move(temporary_path)) {}

OutputFolder::OutputFolder(OutputFolder&& other) noexcept
    : final_path_(std::move(other.final_path_)), temporary_path_(std::exchange(other.temporary_path_, "")) {}

OutputFolder::~OutputFolder() {
  if (!temporary_path_.empty()) remove_folder_of_files(temporary_path_);
}

Result<OutputFolder> OutputFolder::create(const std::string& final_path) {
  std::string path = without_trailing_slash(final_path);
  if (path.empty()) return Error{ErrorKind::kArgumentInvalid, "output folder", "a path", "an empty one"};
  RS_TRY(const bool free, is_free(path));
  if (!free) {
    return Error{ErrorKind::kArgumentInvalid, path, "a folder that is empty or does not exist yet",
                 "something that is already there"};
  }
  std::string temporary_path = temporary_name(path);
  if (file_calls().mkdir(temporary_path.c_str(), 0755) != 0) return write_error(path, errno);
  return OutputFolder(std::move(path), std::move(temporary_path));
}

Status OutputFolder::commit() {
  RS_CHECK(flush_folder(temporary_path_));
  if (file_calls().rename(temporary_path_.c_str(), final_path_.c_str()) != 0) return write_error(final_path_, errno);
  temporary_path_.clear();
  return flush_folder(parent_of(final_path_));
}

bool path_exists(const std::string& path) {
  struct stat status;
  return ::lstat(path.c_str(), &status) == 0;
}

Result<std::string> path_inside(const std::string& folder, const std::string& name) {
  char real_folder[PATH_MAX];
  char real_path[PATH_MAX];
  if (::realpath(folder.c_str(), real_folder) == nullptr) return read_error(folder, errno);
  const std::string path = folder + "/" + name;
  if (::realpath(path.c_str(), real_path) == nullptr) return read_error(path, errno);
  std::string prefix = real_folder;
  if (prefix.back() != '/') prefix += '/';
  if (std::strncmp(real_path, prefix.c_str(), prefix.size()) != 0) {
    return Error{ErrorKind::kFileUnreadable, path, "a file inside its folder", "a link to " + std::string(real_path)};
  }
  return std::string(real_path);
}

}  // namespace ringside
