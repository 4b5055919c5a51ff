/* A Helia node as a child process: JSON lines on standard input and output, the protocol of ../README.md.
 *
 *   node helia_peer.mjs [--port 0]
 *
 * TCP, Noise, Yamux and identify on 127.0.0.1 only; no bootstrap, mDNS, DHT, gateways, relay, AutoNAT. Blocks in memory.
 */
import fs from 'node:fs'
import readline from 'node:readline'
import { createHeliaLight } from 'helia'
import { withLibp2pLight } from '@helia/libp2p'
import { withBitswap } from '@helia/bitswap'
import { unixfs } from '@helia/unixfs'
import { tcp } from '@libp2p/tcp'
import { noise } from '@chainsafe/libp2p-noise'
import { yamux } from '@chainsafe/libp2p-yamux'
import { identify } from '@libp2p/identify'
import { MemoryBlockstore } from 'blockstore-core'
import { fixedSize } from 'ipfs-unixfs-importer/chunker'
import { balanced } from 'ipfs-unixfs-importer/layout'
import { multiaddr } from '@multiformats/multiaddr'
import { CID } from 'multiformats/cid'

const portFlag = process.argv.indexOf('--port')
const port = portFlag < 0 ? '0' : process.argv[portFlag + 1]
const blockstore = new MemoryBlockstore()
const helia = await withBitswap(withLibp2pLight(createHeliaLight({ blockstore }), {
  addresses: { listen: [`/ip4/127.0.0.1/tcp/${port}`] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify() },
  connectionGater: { denyDialMultiaddr: address => !/^\/ip4\/127\./.test(address.toString()) }
}))
await helia.start()
const files = unixfs(helia)

const say = answer => fs.writeSync(1, JSON.stringify(answer) + '\n')
const id = () => ({ peer_id: helia.libp2p.peerId.toString(), addrs: helia.libp2p.getMultiaddrs().map(String) })

const ops = {
  id,
  connect: async ({ addr }) => { await helia.libp2p.dial(multiaddr(addr)); return {} },
  peers: async () => ({ peers: helia.libp2p.getPeers().map(String) }),
  // By default the profile of `ipfs add --cid-version=1`.
  add: async ({ path, chunk = 262144, cid_version: cidVersion = 1, raw_leaves: rawLeaves = true }) => {
    const source = fs.createReadStream(path, { highWaterMark: 1 << 20 })
    const cid = await files.addByteStream(source, {
      rawLeaves,
      cidVersion,
      reduceSingleLeafToSelf: true,
      chunker: fixedSize({ chunkSize: chunk }),
      layout: balanced({ maxChildrenPerNode: 174 })
    })
    return { cid: cid.toString() }
  },
  get: async ({ cid, path }) => {
    const fd = fs.openSync(path, 'w')
    let bytes = 0
    try {
      for await (const chunk of files.cat(CID.parse(cid))) bytes += fs.writeSync(fd, chunk)
    } finally {
      fs.closeSync(fd)
    }
    return { bytes }
  },
  has: async ({ cid }) => ({ has: await blockstore.has(CID.parse(cid)) })
}

say({ ready: true, pid: process.pid, ...id() })
for await (const line of readline.createInterface({ input: process.stdin })) {
  const request = JSON.parse(line)
  const began = performance.now()
  Promise.resolve().then(() => ops[request.op](request)).then(
    answer => say({ id: request.id, ok: true, ...answer, seconds: (performance.now() - began) / 1000 }),
    error => say({ id: request.id, ok: false, error: String(error?.stack ?? error).slice(0, 600) })
  )
}
process.exit(0)
