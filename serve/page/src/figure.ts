/** The moving stick figure: a three.js scene with a floor, soft light and a camera that can follow. */

import {
  BufferGeometry,
  Color,
  CylinderGeometry,
  DirectionalLight,
  Float32BufferAttribute,
  Fog,
  Group,
  HemisphereLight,
  Line,
  LineBasicMaterial,
  LineSegments,
  Mesh,
  MeshStandardMaterial,
  PCFShadowMap,
  PerspectiveCamera,
  PlaneGeometry,
  Scene,
  ShadowMaterial,
  SphereGeometry,
  Spherical,
  Vector3,
  WebGLRenderer,
} from "three";
import { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";

import { type Motion3D, type Side, sideOf } from "./motion";

/** Colours of weights: supports the answer, speaks against it, no weight. */
const FOR = 0xb3123f;
const AGAINST = 0x00796b;
const UNMOVED = 0xb9c3c8;
/** Background of the scene in the light and in the dark theme. */
const BACKGROUND = 0xe9eff1;
const BACKGROUND_DARK = 0x1d2b33;
const GRID_M = 64;

/** Thickness in metres of the figure at a point, by what the point's name contains. */
const THICKNESS: [RegExp, number][] = [
  [/crown/, 0], // the head reaches it
  [/face/, 0.022],
  [/head/, 0.102],
  [/neck/, 0.034],
  [/shoulder/, 0.042],
  [/elbow/, 0.033],
  [/wrist/, 0.025],
  [/hand/, 0.015],
  [/pelvis/, 0.055],
  [/hip/, 0.052],
  [/knee/, 0.043],
  [/ankle/, 0.032],
  [/heel/, 0.027],
  [/ball/, 0.025],
  [/toe/, 0.019],
];
/** What the figure's own thickness adds above its highest and below its lowest points. */
const HEAD_M = 0.1;
const FOOT_M = 0.024;
const OTHER_THICKNESS = 0.046;
const THICKEST_BONE_END = 0.05;

/** From where to look, for a person who faces X. */
const VIEWS = {
  angled: new Vector3(0.62, 0.26, 0.8),
  right: new Vector3(0, 0.1, 1),
  left: new Vector3(0, 0.1, -1),
  front: new Vector3(1, 0.1, 0),
  above: new Vector3(0, 1, 0.001),
};
export type ViewName = keyof typeof VIEWS;

const UP = new Vector3(0, 1, 0);
/** What the controls and the legend cover at the top and at the bottom of the picture. */
const OVERLAY_PX = 44;
const KEY_TURN = Math.PI / 18;

export class FigureView {
  private readonly renderer: WebGLRenderer;
  private readonly scene = new Scene();
  private readonly camera = new PerspectiveCamera(32, 1, 0.1, 300);
  private readonly controls: OrbitControls;
  private readonly body = new Group();
  private readonly floor = new Group();
  private readonly grid = gridOf(GRID_M);
  private readonly sun = new DirectionalLight(0xffffff, 1.7);
  private joints: Mesh[] = [];
  private bones: Mesh[] = [];
  private trail: Line | null = null;
  private motion: Motion3D | null = null;
  private readonly anchor = new Vector3();
  private following = true;
  private frame = 0;
  private stale = true;
  private lastTick = 0;

  /** `onTick` runs before each picture with the seconds since the last one; `onTurn` when the user turns the view. */
  constructor(
    private readonly container: HTMLElement,
    private readonly onTick: (seconds: number) => void,
    private readonly onTurn: () => void,
  ) {
    this.renderer = new WebGLRenderer({ antialias: true });
    this.renderer.setPixelRatio(Math.min(window.devicePixelRatio, 2));
    this.renderer.shadowMap.enabled = true;
    this.renderer.shadowMap.type = PCFShadowMap;
    const canvas = this.renderer.domElement;
    canvas.setAttribute("aria-hidden", "true");
    container.append(canvas);
    this.furnish();

    this.controls = new OrbitControls(this.camera, canvas);
    canvas.style.touchAction = "pan-y"; // a finger still scrolls the page; sideways it turns the figure
    this.controls.enableDamping = !matchMedia("(prefers-reduced-motion: reduce)").matches;
    this.controls.minDistance = 0.8;
    this.controls.maxDistance = 60;
    this.controls.maxPolarAngle = Math.PI / 2 - 0.02;
    this.controls.addEventListener("change", () => (this.stale = true));
    this.controls.addEventListener("start", () => this.onTurn());
    container.addEventListener("keydown", (event) => this.onKey(event));

    new ResizeObserver(() => this.resize()).observe(container);
    this.resize();
    this.setView("angled");
    requestAnimationFrame((now) => this.loop(now));
  }

  /** Light or dark, as the page. */
  setDark(dark: boolean): void {
    const color = new Color(dark ? BACKGROUND_DARK : BACKGROUND);
    this.scene.background = color;
    (this.scene.fog as Fog).color = color;
    (this.grid.material as LineBasicMaterial).color.set(dark ? 0x3d5058 : 0xb3c3ca);
    this.stale = true;
  }

  /** The present picture, as an address for an image: a printed canvas would be empty. */
  picture(): string {
    this.draw();
    return this.renderer.domElement.toDataURL("image/png");
  }

  show(motion: Motion3D, view: ViewName): void {
    this.clear();
    this.motion = motion;
    const materials = Object.fromEntries(
      Object.entries(motion.colors).map(([side, color]) => [side, new MeshStandardMaterial({ color, roughness: 0.62, fog: false })]),
    ) as Record<Side, MeshStandardMaterial>;
    const add = (mesh: Mesh) => {
      mesh.castShadow = true;
      this.body.add(mesh);
      return mesh;
    };
    this.joints = motion.points.map((name) =>
      add(new Mesh(new SphereGeometry(thickness(name), 24, 16), materials[sideOf(name)])),
    );
    this.bones = motion.bones.map(([from, to]) => {
      const names = [motion.points[from]!, motion.points[to]!] as const;
      const [low, high] = names.map((name) => Math.min(thickness(name), THICKEST_BONE_END) * 0.86) as [number, number];
      const side = sideOf(names[1]) === "middle" ? sideOf(names[0]) : sideOf(names[1]);
      return add(new Mesh(new CylinderGeometry(high, low, 1, 18, 1, true), materials[side]));
    });
    this.floor.position.y = motion.floor - FOOT_M;
    this.trail = trailOf(motion);
    this.scene.add(this.trail);
    this.pose(0);
    this.setView(view);
  }

  /** Puts the figure where it is at a frame, which may lie between two recorded ones. */
  pose(frame: number): void {
    const motion = this.motion;
    if (!motion) return;
    frame = Math.min(frame, motion.frames - 1);
    this.frame = Math.floor(frame);
    const first = Math.floor(frame);
    const next = Math.min(first + 1, motion.frames - 1);
    const part = frame - first;
    this.joints.forEach((joint, point) => {
      const [a, b] = [motion.at(first, point), motion.at(next, point)];
      const mix = (axis: number) => motion.xyz[a + axis]! * (1 - part) + motion.xyz[b + axis]! * part;
      joint.position.set(mix(0), mix(1), mix(2));
      joint.visible = !Number.isNaN(joint.position.x + joint.position.y + joint.position.z);
    });
    const along = new Vector3();
    motion.bones.forEach(([from, to], i) => {
      const [bone, a, b] = [this.bones[i]!, this.joints[from]!, this.joints[to]!];
      along.subVectors(b.position, a.position);
      const length = along.length();
      bone.visible = a.visible && b.visible && length > 1e-6;
      if (!bone.visible) return;
      bone.position.addVectors(a.position, b.position).multiplyScalar(0.5);
      bone.quaternion.setFromUnitVectors(UP, along.divideScalar(length));
      bone.scale.y = length;
    });
    this.moveAlong(first, next, part);
    this.stale = true;
  }

  /** Looks at the person's right side, front and so on, as they face now. */
  setView(view: ViewName): void {
    this.aim(VIEWS[view].clone().applyAxisAngle(UP, -(this.motion?.heading(this.frame) ?? 0)));
  }

  /** A camera that follows keeps the figure in the middle; one that does not shows the whole path. */
  setFollow(follow: boolean): void {
    this.following = follow;
    this.aim(this.camera.position.clone().sub(this.controls.target));
  }

  /** Colours the points of the figure by their weight, the rest grey. null: side colours. */
  emphasize(points: Record<string, number> | null): void {
    const motion = this.motion;
    if (!motion) return;
    const weight = (name: string) => points?.[name] ?? 0;
    const most = Math.max(...motion.points.map((name) => Math.abs(weight(name))), 1e-9);
    const paint = (mesh: Mesh, side: Side, share: number | null) => {
      const old = mesh.material as MeshStandardMaterial;
      const color = share === null ? new Color(motion.colors[side]) : new Color(UNMOVED).lerp(new Color(share < 0 ? AGAINST : FOR), Math.abs(share));
      mesh.material = new MeshStandardMaterial({ color, roughness: 0.62, fog: false });
      old.dispose();
    };
    this.joints.forEach((joint, point) => {
      const name = motion.points[point]!;
      const share = points && weight(name) / most;
      paint(joint, sideOf(name), share);
      joint.scale.setScalar(1 + 0.7 * Math.abs(share ?? 0));
    });
    this.bones.forEach((bone, i) => {
      const [from, to] = motion.bones[i]!.map((point) => motion.points[point]!) as [string, string];
      paint(bone, sideOf(to) === "middle" ? sideOf(from) : sideOf(to), points && 0);
    });
    this.stale = true;
  }

  clear(): void {
    for (const mesh of [...this.joints, ...this.bones]) {
      mesh.geometry.dispose();
      (mesh.material as MeshStandardMaterial).dispose();
    }
    this.body.clear();
    this.motion = null;
    this.stale = true;
    if (this.trail) {
      this.scene.remove(this.trail);
      this.trail.geometry.dispose();
      this.trail = null;
    }
  }

  private furnish(): void {
    this.scene.background = new Color(BACKGROUND);
    this.scene.fog = new Fog(BACKGROUND, 6, 30);
    this.sun.castShadow = true;
    this.sun.shadow.mapSize.set(1024, 1024);
    this.sun.shadow.radius = 5;
    this.sun.shadow.normalBias = 0.02;
    const frustum = this.sun.shadow.camera;
    [frustum.left, frustum.right, frustum.top, frustum.bottom] = [-1.8, 1.8, 2.2, -1.8];
    [frustum.near, frustum.far] = [0.5, 12];
    const shade = new Mesh(new PlaneGeometry(GRID_M, GRID_M), new ShadowMaterial({ opacity: 0.2 }));
    shade.rotation.x = -Math.PI / 2;
    shade.position.y = -0.002;
    shade.receiveShadow = true;
    this.floor.add(this.grid, shade);
    this.scene.add(this.floor, this.body, this.sun, this.sun.target, new HemisphereLight(0xffffff, 0xc9d0d3, 2.5));
  }

  /** The light, the floor and a following camera move with the figure. */
  private moveAlong(first: number, next: number, part: number): void {
    const path = this.motion!.path;
    const mix = (axis: number) => path[2 * first + axis]! * (1 - part) + path[2 * next + axis]! * part;
    const step = new Vector3(mix(0), 0, mix(1)).sub(this.anchor);
    this.anchor.add(step);
    this.sun.target.position.copy(this.anchor);
    this.sun.position.set(this.anchor.x + 1.4, 5.5, this.anchor.z + 1.8);
    // Whole cells only: the grid's lines stay where they are in the world.
    this.grid.position.set(Math.round(this.anchor.x), 0, Math.round(this.anchor.z));
    if (this.following) {
      this.camera.position.add(step);
      this.controls.target.add(step);
    }
  }

  /** Looks along a direction, from just far enough away. */
  private aim(from: Vector3): void {
    const [floor, top] = this.motion ? [this.motion.floor - FOOT_M, this.motion.top + HEAD_M] : [0, 1.85];
    let reach = this.motion?.reach ?? 0.6;
    const target = this.anchor.clone();
    if (this.motion && !this.following) {
      const [left, right, near, far] = this.motion.pathBounds();
      target.set((left + right) / 2, 0, (near + far) / 2);
      reach += Math.hypot(right - left, far - near) / 2;
    }
    target.y = (floor + top) / 2;
    const direction = from.clone().normalize();
    const tangent = Math.tan((this.camera.fov * Math.PI) / 360);
    const tall = Math.hypot(direction.x, direction.z) * ((top - floor) / 2) + direction.y ** 2 * reach;
    const height = Math.max(this.container.clientHeight, 2 * OVERLAY_PX);
    const free = 1 - (2 * OVERLAY_PX) / (height + OVERLAY_PX);
    const distance = Math.max((tall * 1.08) / (tangent * free), (reach * 1.05) / (tangent * this.camera.aspect)) + reach * 0.4;
    this.controls.target.copy(target);
    this.camera.position.copy(direction).multiplyScalar(distance).add(target);
    this.controls.update();
    this.stale = true;
  }

  private onKey(event: KeyboardEvent): void {
    const turn: Record<string, [number, number, number]> = {
      ArrowLeft: [-KEY_TURN, 0, 1],
      ArrowRight: [KEY_TURN, 0, 1],
      ArrowUp: [0, -KEY_TURN, 1],
      ArrowDown: [0, KEY_TURN, 1],
      "+": [0, 0, 0.9],
      "=": [0, 0, 0.9],
      "-": [0, 0, 1 / 0.9],
    };
    const by = turn[event.key];
    if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.onTurn();
    const offset = new Spherical().setFromVector3(this.camera.position.clone().sub(this.controls.target));
    offset.theta += by[0];
    offset.phi = Math.min(Math.max(offset.phi + by[1], 0.01), this.controls.maxPolarAngle);
    offset.radius *= by[2];
    this.camera.position.setFromSpherical(offset).add(this.controls.target);
    this.controls.update();
    this.stale = true;
  }

  private resize(): void {
    const { clientWidth: width, clientHeight: height } = this.container;
    if (!width || !height) return;
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    this.renderer.setSize(width, height);
    this.stale = true;
    this.draw();
  }

  private loop(now: number): void {
    requestAnimationFrame((next) => this.loop(next));
    const seconds = Math.min((now - this.lastTick) / 1000, 0.1);
    this.lastTick = now;
    this.onTick(seconds);
    this.controls.update();
    if (this.stale) this.draw();
  }

  private draw(): void {
    const distance = this.camera.position.distanceTo(this.controls.target);
    const fog = this.scene.fog as Fog;
    [fog.near, fog.far] = [distance * 1.1, Math.min(distance * 3 + 8, GRID_M / 2)];
    this.renderer.render(this.scene, this.camera);
    this.stale = false;
  }
}

function thickness(point: string): number {
  return THICKNESS.find(([pattern]) => pattern.test(point))?.[1] ?? OTHER_THICKNESS;
}

/** Lines a metre apart, in pieces of a metre: some renderers drop long lines that reach behind the camera. */
function gridOf(size: number): LineSegments {
  const half = size / 2;
  const ends: number[] = [];
  for (let line = -half; line <= half; line++) {
    for (let from = -half; from < half; from++) {
      ends.push(from, 0, line, from + 1, 0, line, line, 0, from, line, 0, from + 1);
    }
  }
  const geometry = new BufferGeometry().setAttribute("position", new Float32BufferAttribute(ends, 3));
  return new LineSegments(geometry, new LineBasicMaterial({ color: 0xb3c3ca }));
}

/** The line on the floor along which the person moves. */
function trailOf(motion: Motion3D): Line {
  const line = new Float32Array(3 * motion.frames);
  for (let frame = 0; frame < motion.frames; frame++) {
    line.set([motion.path[2 * frame]!, motion.floor - FOOT_M + 0.004, motion.path[2 * frame + 1]!], 3 * frame);
  }
  const geometry = new BufferGeometry().setAttribute("position", new Float32BufferAttribute(line, 3));
  return new Line(geometry, new LineBasicMaterial({ color: 0x5d8791 }));
}
