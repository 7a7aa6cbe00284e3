// Owns: the memory of key-value pages: how many make a block, who gets a slot that was given back, what sessions and
// snapshots say they hold, and that closing them gives it back to the system.
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "backend_model.h"
#include "check.h"
#include "cpu/memory.h"
#include "cpu/model.h"
#include "cpu/state.h"

namespace {

using backend_model::Bits;
using backend_model::Model;
using backend_model::same_bits;
using backend_model::Session;
using ringside::cpu::kHugePageBytes;
using ringside::cpu::Page;
using ringside::cpu::PageBlock;
using Pages = std::vector<std::shared_ptr<Page>>;

constexpr rs_kv_format kFormat = RS_KV_F32;

int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t all_pages = 0, resident_pages = 0;
  statm >> all_pages >> resident_pages;
  return resident_pages * sysconf(_SC_PAGESIZE);
}

std::shared_ptr<Page> page_beside(const ringside::cpu::Shape& shape, const Pages& neighbours) {
  auto page = Page::allocate(shape, kFormat, neighbours);
  CHECK(page.ok());
  return std::move(page).value();
}

}  // namespace

TEST("a block is a few pages that fill huge pages nearly") {
  constexpr int64_t kNano8 = 270336, kMini8 = 1081344;  // in 8 bits
  CHECK_EQ(PageBlock::pages_of(kNano8), 8);
  CHECK_EQ(PageBlock::pages_of(kMini8), 2);
  CHECK_EQ(PageBlock::pages_of(kHugePageBytes / 4), 4);
  CHECK_EQ(PageBlock::pages_of(kHugePageBytes), 1);
  CHECK_EQ(PageBlock::pages_of(0), 1);
  CHECK_EQ(PageBlock::pages_of(1024), PageBlock::kMostPages);
  for (int64_t bytes = 1024; bytes < 3 * PageBlock::kMostBytes; bytes += 1024 * (1 + bytes / 65536)) {
    const int64_t pages = PageBlock::pages_of(bytes);
    CHECK(pages >= 1 && pages <= PageBlock::kMostPages);
    CHECK(pages == 1 || pages * bytes <= PageBlock::kMostBytes);
    CHECK(bytes * PageBlock::kMostPages < kHugePageBytes || pages * bytes >= kHugePageBytes);
  }
}

TEST("a slot that was given back is taken again, all zero, before a new block is made") {
  random_model::Shape config;
  const ringside::cpu::Shape shape(*config.ready());
  const auto page_bytes = static_cast<size_t>(Page::planned_bytes(shape, kFormat));
  const auto in_block = static_cast<size_t>(PageBlock::pages_of(static_cast<int64_t>(page_bytes)));
  CHECK(in_block > 2);
  Pages pages;
  for (size_t i = 0; i < 2 * in_block; ++i) {
    pages.push_back(page_beside(shape, pages));
    std::memset(pages.back()->keys(0, 0), 0xff, page_bytes);  // NaN
    CHECK_EQ(&pages.back()->block() == &pages.front()->block(), i < in_block);
  }
  CHECK_EQ(block_bytes(pages), static_cast<int64_t>(2 * in_block * page_bytes));
  const uint8_t* const left = pages[1]->keys(0, 0);
  pages.erase(pages.begin() + 1);
  const std::shared_ptr<Page> again = page_beside(shape, pages);
  CHECK(again->keys(0, 0) == left);
  CHECK(std::all_of(left, left + page_bytes, [](uint8_t byte) { return byte == 0; }));
  const uint8_t* const next = pages[1]->keys(0, 0);
  CHECK(std::all_of(next, next + page_bytes, [](uint8_t byte) { return byte == 0xff; }));
  pages.push_back(again);
  CHECK(&page_beside(shape, pages)->block() != &again->block());
}

TEST("closing sessions and dropping snapshots gives their memory back to the system") {
  random_model::Shape shape;
  random_model::Source source(31, RS_WEIGHT_F32);
  Model model(rs_cpu_backend(), shape, source, 2);
  const std::vector<int32_t> ids = random_model::tokens(1, 4096, shape.config.vocab_rows);
  const auto fill = [&](Session& session) {
    CHECK_EQ(session.extend(ids.data(), 4096, RS_LOGITS_NONE, nullptr, nullptr), 0);
  };
  {
    Session warm = model.open();  // touches the workspace
    fill(warm);
  }
  constexpr int64_t kSlackBytes = 1 << 20;
  const int64_t before_bytes = resident_bytes();
  for (int turn = 0; turn < 3; ++turn) {
    rs_snapshot* snapshot = nullptr;
    int64_t held_bytes = 0;
    {
      Session session = model.open();
      fill(session);
      held_bytes = session.bytes();
      CHECK(resident_bytes() - before_bytes > held_bytes - kSlackBytes);
      snapshot = model.save(session);
    }
    CHECK(resident_bytes() - before_bytes > held_bytes - kSlackBytes);
    rs_cpu_backend()->drop(snapshot);
    CHECK(resident_bytes() - before_bytes < kSlackBytes);
  }
}

TEST("a session counts whole blocks, and a line of snapshots costs no more than its pages and one block") {
  random_model::Shape shape;
  random_model::Source source(32, RS_WEIGHT_F32);
  Model model(rs_cpu_backend(), shape, source);
  const ringside::cpu::Shape cpu_shape(*shape.ready());
  const int64_t page_bytes = Page::planned_bytes(cpu_shape, kFormat);
  const int64_t block = PageBlock::pages_of(page_bytes) * page_bytes;
  const std::vector<int32_t> ids = random_model::tokens(2, 64 * 40, shape.config.vocab_rows);
  Session session = model.open();
  const int64_t empty_bytes = session.bytes();
  rs_snapshot* last = nullptr;
  for (int64_t done = 0; done < 64 * 40; done += 64) {
    CHECK_EQ(session.extend(ids.data() + done, 64, RS_LOGITS_NONE, nullptr, nullptr), 0);
    const int64_t pages = done / RS_PAGE_TOKENS + 1;
    const int64_t held = session.bytes() - empty_bytes;
    CHECK_EQ(held % block, 0);
    CHECK(held >= pages * page_bytes && held <= (pages * page_bytes + block - 1) / block * block + block);
    rs_snapshot* const snapshot = model.save(session);
    if (last != nullptr) rs_cpu_backend()->drop(last);
    last = snapshot;
  }
  rs_cpu_backend()->drop(last);
}

TEST("a snapshot of one page keeps one block, however long its session was") {
  random_model::Shape shape;
  random_model::Source source(33, RS_WEIGHT_F32);
  Model model(rs_cpu_backend(), shape, source, 2);
  const std::vector<int32_t> ids = random_model::tokens(3, 4096, shape.config.vocab_rows);
  rs_snapshot* snapshot = nullptr;
  int64_t before_bytes = 0;
  {
    Session session = model.open();
    CHECK_EQ(session.extend(ids.data(), 4096, RS_LOGITS_NONE, nullptr, nullptr), 0);
  }
  before_bytes = resident_bytes();
  {
    Session session = model.open();
    CHECK_EQ(session.extend(ids.data(), 64, RS_LOGITS_NONE, nullptr, nullptr), 0);
    snapshot = model.save(session);
    CHECK_EQ(session.extend(ids.data() + 64, 4096 - 64, RS_LOGITS_NONE, nullptr, nullptr), 0);
  }
  const int64_t kept_bytes = rs_cpu_backend()->snapshot_bytes(snapshot);
  CHECK(kept_bytes < PageBlock::kMostBytes + (1 << 20));
  CHECK(resident_bytes() - before_bytes < kept_bytes + (1 << 20));
  rs_cpu_backend()->drop(snapshot);
}

// Other threads drop snapshots and close sessions while the model runs a third session whose slots lie among theirs.
TEST("slots given back by other threads while the model runs change no bit") {
  random_model::Shape shape;
  random_model::Source source(34, RS_WEIGHT_F32);
  Model model(rs_cpu_backend(), shape, source, 2);
  const std::vector<int32_t> ids = random_model::tokens(4, 1600, shape.config.vocab_rows);
  Session whole = model.open();
  const Bits expected = whole.feed(ids, {1600});
  Session session = model.open();
  Bits logits(expected.size());
  std::vector<std::thread> droppers;
  constexpr int64_t kPiece = 64;
  for (int64_t done = 0; done < 1600; done += kPiece) {
    float* to = logits.data() + done * shape.config.vocab_rows;
    CHECK_EQ(session.extend(ids.data() + done, kPiece, RS_LOGITS_ALL, to, nullptr), 0);
    rs_snapshot* const snapshot = model.save(session);
    auto other = std::make_shared<Session>(model.restore(snapshot));
    CHECK_EQ(other->extend(ids.data(), 300, RS_LOGITS_NONE, nullptr, nullptr), 0);
    droppers.emplace_back([snapshot, other]() mutable {
      rs_cpu_backend()->drop(snapshot);
      other.reset();
    });
    other.reset();
  }
  for (std::thread& dropper : droppers) dropper.join();
  CHECK(same_bits(logits, expected));
}
