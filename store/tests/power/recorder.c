// Records every write and sync of a process below COMITY_RECORD_ROOT, in order, to COMITY_RECORD_LOG; and
// what it says on stdout, which is where it acknowledges. Loaded with LD_PRELOAD by tests/power.rs, which
// documents the log. One lock around each call and its entry keeps the order true.
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static const char *root;

__attribute__((constructor)) static void start(void) {
    root = getenv("COMITY_RECORD_ROOT");
    const char *path = getenv("COMITY_RECORD_LOG");
    if (root && path) log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    unsetenv("LD_PRELOAD");
}

static void record(char kind, const char *path, uint64_t offset, const void *data, uint64_t length) {
    uint32_t path_length = (uint32_t)strlen(path);
    struct iovec parts[6] = {{&kind, 1}, {&path_length, 4}, {&offset, 8}, {&length, 8},
                             {(void *)path, path_length}, {(void *)data, data ? length : 0}};
    syscall(SYS_writev, log_fd, parts, 6);
}

static int watched(const char *path) {
    return log_fd >= 0 && strncmp(path, root, strlen(root)) == 0;
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return watched(path);
}

#define LOCKED(type, call, entry) \
    pthread_mutex_lock(&lock); type result = call; if (result >= 0) { entry; } pthread_mutex_unlock(&lock); return result

static int open_recorded(int dir, const char *path, int flags, mode_t mode) {
    struct stat before;
    int existed = stat(path, &before) == 0;
    LOCKED(int, (int)syscall(SYS_openat, dir, path, flags, mode),
        if (watched(path)) {
            if (!existed && (flags & O_CREAT)) record('C', path, 0, NULL, 0);
            if (existed && (flags & O_TRUNC)) record('T', path, 0, NULL, 0);
        });
}
static mode_t mode_of(int flags, va_list arguments) { return flags & O_CREAT ? va_arg(arguments, mode_t) : 0; }
#define OPEN(name) int name(const char *path, int flags, ...) { \
    va_list a; va_start(a, flags); mode_t mode = mode_of(flags, a); va_end(a); return open_recorded(AT_FDCWD, path, flags, mode); }
#define OPENAT(name) int name(int dir, const char *path, int flags, ...) { \
    va_list a; va_start(a, flags); mode_t mode = mode_of(flags, a); va_end(a); return open_recorded(dir, path, flags, mode); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

ssize_t write(int fd, const void *data, size_t length) {
    char path[PATH_MAX];
    uint64_t at = fd > 2 ? (uint64_t)lseek(fd, 0, SEEK_CUR) : 0;
    LOCKED(ssize_t, syscall(SYS_write, fd, data, length),
        if (fd == 1 && log_fd >= 0) record('A', "", 0, data, (uint64_t)result);
        else if (path_of(fd, path)) record('W', path, at, data, (uint64_t)result));
}
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t at) {
    char path[PATH_MAX];
    LOCKED(ssize_t, syscall(SYS_pwrite64, fd, data, length, at),
        if (path_of(fd, path)) record('W', path, (uint64_t)at, data, (uint64_t)result));
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return pwrite64(fd, data, length, at); }
int fsync(int fd) {
    char path[PATH_MAX];
    LOCKED(int, (int)syscall(SYS_fsync, fd), if (path_of(fd, path)) record('S', path, 0, NULL, 0));
}
int fdatasync(int fd) {
    char path[PATH_MAX];
    LOCKED(int, (int)syscall(SYS_fdatasync, fd), if (path_of(fd, path)) record('S', path, 0, NULL, 0));
}
int ftruncate64(int fd, off64_t length) {
    char path[PATH_MAX];
    LOCKED(int, (int)syscall(SYS_ftruncate, fd, length), if (path_of(fd, path)) record('T', path, (uint64_t)length, NULL, 0));
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }
int rename(const char *from, const char *to) {
    LOCKED(int, (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0),
        if (watched(from)) record('R', from, 0, to, strlen(to)));
}
int unlink(const char *path) {
    LOCKED(int, (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0), if (watched(path)) record('U', path, 0, NULL, 0));
}
int mkdir(const char *path, mode_t mode) {
    LOCKED(int, (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode), if (watched(path)) record('D', path, 0, NULL, 0));
}
