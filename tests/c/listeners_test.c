// Listeners from elsewhere, and the service manager. It needs no io_uring. Whatever changes the
// environment or takes fixed numbers of descriptors does so in a child.

#include <poll.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "check.h"

static void InChild(void (*test)(void)) {
  int status = -1;
  const pid_t child = fork();
  if (child == 0) {
    test();
    _exit(0);
  }
  EXPECT(child > 0 && waitpid(child, &status, 0) == child && status == 0);
}

static void SetNumber(const char* name, long number) {
  char text[32];
  snprintf(text, sizeof(text), "%ld", number);
  EXPECT(setenv(name, text, 1) == 0);
}

static void InheritsAListener(void) {
  int pipes[2];
  const int fd = Listen();
  MUST(ringmaster_inherit_listener(fd));
  EXPECT(pipe(pipes) == 0);
  EXPECT_ERROR(ringmaster_inherit_listener(pipes[0]), EINVAL, "socket");
  EXPECT_ERROR(ringmaster_inherit_listener(-1), EINVAL, "descriptor");
  close(pipes[0]), close(pipes[1]);
  close(fd);
}

static void TakesListenersOfTheService(void) {
  ringmaster_listeners* listeners = NULL;
  ringmaster_service_listeners_options options;
  MUST(ringmaster_listeners_of_service(NULL, &listeners));
  EXPECT(ringmaster_listeners_count(listeners) == 0);
  MUST(ringmaster_listeners_free(listeners));

  const int fd = Listen();
  EXPECT(dup2(fd, 3) == 3);
  SetNumber("LISTEN_PID", getpid());
  EXPECT(setenv("LISTEN_FDS", "many", 1) == 0);
  MUST(ringmaster_service_listeners_options_init(&options, sizeof(options)));
  options.unset_environment = 5;
  EXPECT_ERROR(ringmaster_listeners_of_service(&options, &listeners), EINVAL,
               "unset_environment is 5");
  options.unset_environment = 0;
  options.reserved = 1;
  EXPECT_ERROR(ringmaster_listeners_of_service(&options, &listeners), EINVAL, "reserved is 1");
  options.reserved = 0;
  EXPECT_ERROR(ringmaster_listeners_of_service(&options, &listeners), EINVAL, "LISTEN_FDS");
  SetNumber("LISTEN_FDS", 1);
  EXPECT(setenv("LISTEN_FDNAMES", "web", 1) == 0);
  options.name = "web";
  options.unset_environment = 1;
  MUST(ringmaster_listeners_of_service(&options, &listeners));
  EXPECT(getenv("LISTEN_FDS") == NULL && ringmaster_listeners_count(listeners) == 1);
  EXPECT(strcmp(ringmaster_listeners_name(listeners, 0), "web") == 0);
  EXPECT(ringmaster_listeners_name(listeners, 1) == NULL);
  EXPECT(ringmaster_listeners_fd(listeners, 0) == 3);
  EXPECT_ERROR(ringmaster_listeners_fd(listeners, 1), EINVAL, "position is 1, but there are 1");
  EXPECT_ERROR(ringmaster_listeners_take_fd(listeners, 1), EINVAL, "position is 1");
  EXPECT(ringmaster_listeners_predecessor(listeners) == 0);
  EXPECT(ringmaster_listeners_take_fd(listeners, 0) == 3);
  EXPECT_ERROR(ringmaster_listeners_fd(listeners, 0), EBUSY, "taken out before");
  EXPECT_ERROR(ringmaster_listeners_take_fd(listeners, 0), EBUSY, "taken out before");
  MUST(ringmaster_listeners_free(listeners));
  EXPECT(ringmaster_inherit_listener(3) == 0);  // open still
}

// --- From one generation to the next -------------------------------------------------------------

typedef struct generation {
  ringmaster_hand_over* hand_over;
  int told[2];  // a pipe: a letter for each callback
  const char* problem;
} generation;

static void Tell(generation* it, char letter) { EXPECT(write(it->told[1], &letter, 1) == 1); }
static void ExpectToBeTold(generation* it, char letter) {
  struct pollfd readable = {it->told[0], POLLIN, 0};
  char byte = 0;
  EXPECT(poll(&readable, 1, 20000) == 1 && read(it->told[0], &byte, 1) == 1 && byte == letter);
}
static void OnHandedOver(void* context, int successor) {
  generation* it = context;
  EXPECT(successor == getpid());
  EXPECT_ERROR(ringmaster_hand_over_free(it->hand_over), EBUSY, "cannot free it");
  Tell(it, 'h');
}
static void OnPredecessorEnded(void* context) { Tell(context, 'p'); }
static void OnFailed(void* context, int error, const char* why) {
  EXPECT(error < 0 && strlen(why) > 0);
  Tell(context, 'f');
}

static void HandsListenersOver(void) {
  char folder[] = "/tmp/ringmaster-c-XXXXXX";
  char path[64];
  ringmaster_offered_listener offered[1];
  ringmaster_hand_over_options options;
  ringmaster_listeners* listeners = NULL;
  generation first, second;
  EXPECT(pipe(first.told) == 0 && pipe(second.told) == 0 && mkdtemp(folder) != NULL);
  snprintf(path, sizeof(path), "%s/hand-over", folder);
  offered[0].fd = Listen();
  offered[0].name = "web";
  EXPECT_ERROR(ringmaster_take_over(path, RINGMASTER_ANSWER_MAX_NS, NULL), EINVAL, "listeners is");
  EXPECT_ERROR(ringmaster_take_over(path, 0, &listeners), EINVAL, "answer_max_ns is not positive");
  EXPECT_ERROR(ringmaster_take_over(path, RINGMASTER_ANSWER_MAX_NS, &listeners), ENOENT, path);

  MUST(ringmaster_hand_over_options_init(&options, sizeof(options)));
  options.on_handed_over = OnHandedOver;
  options.on_predecessor_ended = OnPredecessorEnded;
  options.on_failed = OnFailed;
  options.context = &first;
  EXPECT_ERROR(ringmaster_hand_over_serve(path, NULL, 1, NULL, NULL, &first.hand_over), EINVAL,
               "offered is null");
  EXPECT_ERROR(ringmaster_hand_over_serve(path, offered, 1, NULL, NULL, NULL), EINVAL,
               "hand_over is null");
  EXPECT_ERROR(ringmaster_hand_over_serve(path, offered, 0, NULL, NULL, &first.hand_over), EINVAL,
               "listener");
  options.start_max_ns = 0;
  EXPECT_ERROR(ringmaster_hand_over_serve(path, offered, 1, &options, NULL, &first.hand_over),
               EINVAL, "start_max_ns is not positive");
  options.start_max_ns = INT64_C(60000000000);
  MUST(ringmaster_hand_over_serve(path, offered, 1, &options, NULL, &first.hand_over));
  EXPECT_ERROR(ringmaster_hand_over_serve(path, offered, 1, NULL, NULL, &second.hand_over), EEXIST,
               path);

  // A successor that gives up before it serves.
  MUST(ringmaster_take_over(path, RINGMASTER_ANSWER_MAX_NS, &listeners));
  MUST(ringmaster_listeners_free(listeners));
  ExpectToBeTold(&first, 'f');
  // One that serves.
  MUST(ringmaster_take_over(path, RINGMASTER_ANSWER_MAX_NS, &listeners));
  EXPECT(ringmaster_listeners_predecessor(listeners) == getpid());
  EXPECT(ringmaster_listeners_count(listeners) == 1);
  EXPECT(strcmp(ringmaster_listeners_name(listeners, 0), "web") == 0);
  offered[0].fd = (int)MUST(ringmaster_listeners_take_fd(listeners, 0));
  options.context = &second;
  MUST(ringmaster_hand_over_serve(path, offered, 1, &options, listeners, &second.hand_over));
  MUST(ringmaster_listeners_free(listeners));
  ExpectToBeTold(&first, 'h');
  EXPECT(ringmaster_hand_over_stop(first.hand_over) == 1);
  ExpectToBeTold(&second, 'p');
  EXPECT(ringmaster_hand_over_stop(second.hand_over) == 0);
  MUST(ringmaster_hand_over_free(first.hand_over));
  MUST(ringmaster_hand_over_free(second.hand_over));
  EXPECT(rmdir(folder) == 0);  // nothing is left in it
}

// --- The service manager -------------------------------------------------------------------------

static void TellsTheServiceManager(void) {
  ringmaster_service_state state;
  struct sockaddr_un address;
  socklen_t size = sizeof(address);
  char text[256];
  int64_t interval_ns = 0;
  MUST(ringmaster_service_state_init(&state, sizeof(state)));
  unsetenv("NOTIFY_SOCKET");
  unsetenv("WATCHDOG_USEC");
  MUST(ringmaster_notify_service(&state));
  MUST(ringmaster_watchdog_interval(&interval_ns));
  EXPECT(interval_ns == RINGMASTER_FOREVER);
  EXPECT(setenv("WATCHDOG_USEC", "2000000", 1) == 0);
  MUST(ringmaster_watchdog_interval(&interval_ns));
  EXPECT(interval_ns == INT64_C(2000000000));
  EXPECT(setenv("WATCHDOG_USEC", "soon", 1) == 0);
  EXPECT_ERROR(ringmaster_watchdog_interval(&interval_ns), EINVAL, "WATCHDOG_USEC");

  // An abstract name that the kernel chooses.
  const int manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  memset(&address, 0, sizeof(address));
  address.sun_family = AF_UNIX;
  EXPECT(bind(manager, (struct sockaddr*)&address, sizeof(sa_family_t)) == 0);
  EXPECT(getsockname(manager, (struct sockaddr*)&address, &size) == 0);
  const size_t name = size - offsetof(struct sockaddr_un, sun_path);
  EXPECT(name < sizeof(text));
  memcpy(text, address.sun_path, name);
  text[0] = '@';
  text[name] = '\0';
  EXPECT(setenv("NOTIFY_SOCKET", text, 1) == 0);
  state.ready = state.watchdog = 1;
  state.main_pid = 4711;
  state.status = "serving";
  MUST(ringmaster_notify_service(&state));
  const ssize_t got = recv(manager, text, sizeof(text) - 1, MSG_DONTWAIT);
  EXPECT(got > 0);
  text[got] = '\0';
  EXPECT(strstr(text, "READY=1") && strstr(text, "WATCHDOG=1") && strstr(text, "MAINPID=4711"));
  EXPECT(strstr(text, "STATUS=serving") && !strstr(text, "STOPPING"));
  state.status = "two\nlines";
  EXPECT_ERROR(ringmaster_notify_service(&state), EINVAL, "line");
  state.status = NULL;
  state.ready = 2;
  EXPECT_ERROR(ringmaster_notify_service(&state), EINVAL, "ready is 2");
  state.ready = 1;
  state.reserved = 2;
  EXPECT_ERROR(ringmaster_notify_service(&state), EINVAL, "reserved is 2");
  state.reserved = 0;
  close(manager);
  EXPECT_ERROR(ringmaster_notify_service(&state), EAGAIN, "");
}

int main(void) {
  InheritsAListener();
  InChild(TakesListenersOfTheService);
  HandsListenersOver();
  InChild(TellsTheServiceManager);
  return 0;
}
