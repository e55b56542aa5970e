// Not shared with the page, so that this chunk differs from version to version.
const version = 1;

export default function Details() {
  return <p>details of version {version}</p>;
}
