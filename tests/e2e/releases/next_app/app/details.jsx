import { version } from "./version";

export default function Details() {
  return <p>details of version {version}</p>;
}
