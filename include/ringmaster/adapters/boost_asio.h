// Workers with Boost.Asio (Debian: libboost-dev). As asio.h, with boost:: before each name of Asio,
// and BoostAsioWorker in the place of AsioWorker.

#ifndef RINGMASTER_ADAPTERS_BOOST_ASIO_H_
#define RINGMASTER_ADAPTERS_BOOST_ASIO_H_

#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/system/error_code.hpp>

#include "ringmaster/adapters/asio_worker.h"

namespace ringmaster {

// A worker whose loop is a boost::asio::io_context.
using BoostAsioWorker =
    BasicAsioWorker<boost::asio::io_context, boost::asio::posix::stream_descriptor,
                    boost::system::error_code>;

}  // namespace ringmaster

#endif  // RINGMASTER_ADAPTERS_BOOST_ASIO_H_
