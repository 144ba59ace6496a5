#include "common/mutex.h"

#include <errno.h>
#include <time.h>

#include <algorithm>

#include "common/check.h"

namespace bellwether {
namespace {

constexpr absl::Duration kLongestWait = absl::Hours(24 * 365);  // that a timespec surely holds

}  // namespace

Mutex::~Mutex() {
  pthread_cond_destroy(&changed_);
  pthread_mutex_destroy(&mutex_);
}

void Mutex::Lock() { BW_CHECK_EQ(pthread_mutex_lock(&mutex_), 0); }

void Mutex::Unlock() {
  if (waiters_ > 0) pthread_cond_broadcast(&changed_);
  BW_CHECK_EQ(pthread_mutex_unlock(&mutex_), 0);
}

// The waiting thread gives the mutex back too: others may wait for what it has changed.
void Mutex::BeginWaiting() {
  if (waiters_++ > 0) pthread_cond_broadcast(&changed_);
}

void Mutex::Wait() { BW_CHECK_EQ(pthread_cond_wait(&changed_, &mutex_), 0); }

timespec Mutex::EndOf(absl::Duration limit) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::ToTimespec(absl::DurationFromTimespec(now) +
                          std::clamp(limit, absl::ZeroDuration(), kLongestWait));
}

bool Mutex::WaitUntil(const timespec& end) {
  const int result = pthread_cond_clockwait(&changed_, &mutex_, CLOCK_MONOTONIC, &end);
  BW_CHECK(result == 0 || result == ETIMEDOUT);
  return result == 0;
}

}  // namespace bellwether
