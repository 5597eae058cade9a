// Downloads one torrent with webtorrent@1: node webtorrent.js TORRENT-or-MAGNET OUT
//
// Peers come from the trackers that the torrent names, nothing else. Everything is left as
// webtorrent has it, except what searches the network. NODE_PATH says where webtorrent is.

const WebTorrent = require('webtorrent')

const [torrent, out] = process.argv.slice(2)
if (!out) {
  console.error('usage: node webtorrent.js TORRENT-or-MAGNET OUT')
  process.exit(2)
}

function fail (error) {
  console.error(String(error))
  process.exit(1)
}

// tracker.wrtc: without a WebRTC implementation there is nothing to offer.
const client = new WebTorrent({ dht: false, lsd: false, natUpnp: false, natPmp: false, tracker: { wrtc: false } })
client.on('error', fail)
client.add(torrent, { path: out }, (added) => {
  added.on('error', fail)
  added.on('warning', (warning) => console.error(String(warning)))
  added.on('wire', (wire, address) => {
    console.log(`connected to ${address}, ${wire.type}`)
    wire.on('close', () => console.log(`closed by ${address}`))
  })
  const complete = () => {
    console.log(`${added.name}: complete, ${added.downloaded} bytes`)
    client.destroy(() => process.exit(0))
  }
  if (added.done) complete()
  else added.on('done', complete)
})
