#!/usr/bin/env bash
# cbor-x 1.6.9 (npm) takes two ranges of CBOR tag numbers that anybody may use, 27647 to 28671 and 28704 to 32767, for
# references of its Packed CBOR, and refuses the whole message: "No packed values available". The numbers beside these
# ranges bring a Tag, as all of them do with the package cbor 10.0.11.
#
# Input: a CBOR item of seven bytes, a tag before the text "abc" (RFC 8949, section 3.4). Seen with Node.js 20.
# Fails if what is seen changes. Needs node, npm and a registry in reach.
set -eu

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y > /dev/null
npm install --silent --no-audit --no-fund cbor-x@1.6.9 cbor@10.0.11

cat > read.js <<'EOF'
const packed = require("cbor-x");
const other = require("cbor");
const shown = (read, data) => {
  try {
    const item = read(data);
    return `tag ${item.tag} of ${item.value}`;
  } catch (error) {
    return `refused: ${error.message}`;
  }
};
for (const number of [27646, 27647, 28671, 28672, 28703, 28704, 32767, 32768]) {
  const data = Buffer.from([0xd9, number >> 8, number & 0xff, 0x63, 0x61, 0x62, 0x63]);
  console.log(`${number}; cbor-x: ${shown(packed.decode, data)}; cbor: ${shown(other.decodeFirstSync, data)}`);
}
EOF
node read.js | tee seen.txt

cat > expected.txt <<'EOF'
27646; cbor-x: tag 27646 of abc; cbor: tag 27646 of abc
27647; cbor-x: refused: No packed values available; cbor: tag 27647 of abc
28671; cbor-x: refused: No packed values available; cbor: tag 28671 of abc
28672; cbor-x: tag 28672 of abc; cbor: tag 28672 of abc
28703; cbor-x: tag 28703 of abc; cbor: tag 28703 of abc
28704; cbor-x: refused: No packed values available; cbor: tag 28704 of abc
32767; cbor-x: refused: No packed values available; cbor: tag 32767 of abc
32768; cbor-x: tag 32768 of abc; cbor: tag 32768 of abc
EOF
diff expected.txt seen.txt && echo "as described"
