// Workers with Asio, where that stands alone (Debian: libasio-dev). With Boost: boost_asio.h.
//
//   asio::io_context context(1);
//   auto worker = ringmaster::AsioWorker::Create(context, balancer, handlers).value();
//   if (auto joined = source.Join(worker.port()); !joined.ok()) …
//   context.run();  // or worker.Run(), which gives hints
//
// In handlers.serve a socket takes the connection over:
//
//   client->lease =
//       ringmaster::AssignTo(client->socket, asio::ip::tcp::v4(), std::move(connection));
//
// worker.h says what the handlers are, asio_worker.h what the worker can do.

#ifndef RINGMASTER_ADAPTERS_ASIO_H_
#define RINGMASTER_ADAPTERS_ASIO_H_

#include <asio/error_code.hpp>
#include <asio/io_context.hpp>
#include <asio/posix/stream_descriptor.hpp>

#include "ringmaster/adapters/asio_worker.h"

namespace ringmaster {

// A worker whose loop is an asio::io_context.
using AsioWorker =
    BasicAsioWorker<asio::io_context, asio::posix::stream_descriptor, asio::error_code>;

}  // namespace ringmaster

#endif  // RINGMASTER_ADAPTERS_ASIO_H_
