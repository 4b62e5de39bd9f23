r"""The probabilistic grammar behind the stand-in snapshot, as data.

Every word here was written for this artifact; nothing is taken from real abstracts. `corpus` draws
texts from these tables and computes their exact likelihood.

A *lexicon* (one per topic) fills nine slots. What a term must look like, so that every rule reads
as English:

==========  ===============================================================================
objects     plural noun phrase without an article: ``D3-branes``
adjectives  stands before objects: ``supersymmetric``
settings    noun phrase that follows *in* or *of*: ``type IIB string theory``
quantities  singular noun that follows *the*: ``central charge``
methods     noun phrase that follows *using* or *on*: ``supersymmetric localization``
phenomena   uncountable noun, singular verb: ``supersymmetry breaking``
results     a whole clause: ``the spectrum is free of tachyons``
goals       noun phrase that follows *for*: ``flux compactifications``
cases       noun phrase that follows *for* or *beyond*: ``$AdS_5 \times S^5$``
==========  ===============================================================================

Terms are separated by ``;`` and ordered from frequent to rare (their weights are Zipf-like). No
term or rule holds ``.``, ``?`` or ``!`` except a rule's last character, so sentences can be told
apart; and no two derivations give the same sentence (a test proves it).
"""

LEXICA: dict[str, dict[str, str]] = {
    "strings": {
        "objects": r"""D-branes; Calabi-Yau threefolds; orbifold vacua; orientifold planes;
            D3-branes; brane bound states; Wilson loops; M5-branes; flux vacua; string amplitudes;
            supergravity solutions; giant gravitons; open strings; NS5-branes; M2-branes; elliptic
            fibrations; F-theory models; matrix models; twist operators; worldsheet instantons; pure
            spinors; vertex operators; mirror pairs; tachyon condensates; quiver gauge theories;
            little string theories; higher-spin fields; D-instantons; $(p,q)$ sevenbranes; toric
            singularities; spinning strings; tensor multiplets""",
        "adjectives": r"""supersymmetric; non-BPS; wrapped; $\mathcal{N}=2$; non-perturbative;
            holographic; fractional; heterotic $E_8 \times E_8$; type IIA; warped; T-dual;
            asymmetric; tensionless; magnetized; exceptional; non-geometric; S-dual; rigid;
            semi-classical; maximally supersymmetric; Dirichlet; quarter-BPS; $SL(2,\mathbb{Z})$
            covariant; toroidal; twisted-sector; multi-centered""",
        "settings": r"""type IIB string theory; the AdS/CFT correspondence; $\mathcal{N}=4$ super
            Yang-Mills theory; M-theory; heterotic string theory; type IIA string theory; F-theory;
            eleven-dimensional supergravity; the landscape of string vacua; $\mathcal{N}=8$
            supergravity; bosonic string theory; ABJM theory; topological string theory; double
            field theory; closed string field theory; the pure spinor formalism; the pp-wave
            background; six-dimensional $(2,0)$ theory; the BFSS matrix model; gauged supergravity;
            type I string theory; the Klebanov-Strassler background; open string field theory; the
            swampland program; the hexagon formalism; Vasiliev theory""",
        "quantities": r"""superpotential; central charge; Kahler potential; superconformal index;
            string coupling; anomalous dimension; prepotential; BPS spectrum; moduli space metric;
            dilaton profile; elliptic genus; tadpole; boundary state; gravitino mass; Ramond-Ramond
            flux; Euler characteristic; partition function on $S^3$; gauge kinetic function; cusp
            anomalous dimension; worldsheet $S$-matrix; Regge slope; brane tension;
            Gukov-Vafa-Witten superpotential; D-term potential; topological vertex; tree-level
            amplitude; Hagedorn temperature; Kaluza-Klein spectrum""",
        "methods": r"""supersymmetric localization; mirror symmetry; T-duality; the
            Dirac-Born-Infeld action; the thermodynamic Bethe ansatz; matrix model techniques; a
            consistent truncation; the quantum spectral curve; the topological vertex formalism;
            generalized geometry; exceptional field theory; the refined holomorphic anomaly; level
            truncation; the RNS formalism; heterotic duality; wall-crossing formulae; toric
            geometry; light-cone gauge quantization; kappa symmetry; boundary conformal field
            theory; the Seiberg-Witten curve; geometric engineering; a chain of dualities; Gepner
            models; the Green-Schwarz mechanism; integrability""",
        "phenomena": r"""moduli stabilization; supersymmetry breaking; tachyon condensation;
            S-duality; brane nucleation; gaugino condensation; open-closed duality; flux
            quantization; wall crossing; kappa symmetry breaking; geometric transition; anomaly
            inflow; holographic chiral symmetry breaking; large $N$ factorization; U-duality; the
            Myers effect; topology change; spectral flow; gauge enhancement; string pair creation;
            worldsheet integrability; the Higgs branch; decompactification; brane polarization;
            mirror duality; monodromy""",
        "results": r"""all complex structure moduli are fixed by the fluxes; the spectrum is free of
            tachyons; the dual geometry has no smooth supergravity limit; the tadpole cancels only
            for special values of the dilaton; the moduli space receives no quantum corrections; the
            planar limit is captured by a classical string; supersymmetry is broken at the bottom of
            the throat; the central charges agree with the holographic prediction; the brane
            configuration preserves eight supercharges; the superpotential is generated by Euclidean
            branes; the $\alpha'$ corrections vanish to second order; the index counts the BPS
            states exactly; the world-volume theory flows to a superconformal fixed point; the
            string spectrum matches the gauge theory at every loop order; the instanton series is
            resummed by a modular form; the open string tachyon rolls towards the closed string
            vacuum; the warp factor diverges near the tip; the two quivers are related by Seiberg
            duality; the $U(1)$ gauge bosons become massive; no de Sitter vacuum survives the
            backreaction; the chiral ring is finitely generated; the giant graviton expands into the
            sphere""",
        "goals": r"""flux compactifications; string model building; black hole microstate counting;
            the swampland conjectures; precision holography; the string landscape; brane inflation;
            the geometry of string vacua; the weak gravity conjecture; non-perturbative string
            theory; holographic duals of QCD; the classification of superconformal theories; the
            moduli problem; three-generation models; enumerative geometry; the ultraviolet
            completion of supergravity; heterotic phenomenology; integrable sigma models; axion
            monodromy; the dynamics of M-theory; tensor models; celestial duality; string field
            theory; the distance conjecture""",
        "cases": r"""$AdS_5 \times S^5$; the conifold; $AdS_4 \times \mathbb{CP}^3$; $K3$ surfaces;
            the quintic; $AdS_3 \times S^3 \times T^4$; toroidal orbifolds; the resolved conifold; a
            single stack of branes; $AdS_7 \times S^4$; Sasaki-Einstein manifolds; the large volume
            scenario; the $\mathbb{Z}_3$ orbifold; the $SU(2)$ sector; del Pezzo surfaces; manifolds
            of $G_2$ holonomy; the local $\mathbb{P}^2$ geometry; intersecting sixbranes; the
            Lunin-Maldacena background; $T^{1,1}$; class $\mathcal{S}$ theories; the free fermionic
            construction; the Dp-brane backgrounds; the plane wave; the Hirzebruch surfaces; the BMN
            limit""",
    },
    "qft": {
        "objects": r"""conformal field theories; scattering amplitudes; correlation functions; gauge
            theories; instantons; Feynman integrals; magnetic monopoles; line operators; solitons;
            twist defects; form factors; surface defects; effective actions; Dirac fermions; master
            integrals; vortices; conformal blocks; boundary conditions; ghost fields; domain
            walls""",
        "adjectives": r"""non-abelian; renormalizable; chiral; two-dimensional; one-loop;
            cohomological; massless; rational; Lorentz-invariant; strongly coupled; planar;
            non-invertible; infrared-finite; noncommutative; parity-odd; $\mathcal{PT}$-symmetric;
            light-ray; non-Lagrangian""",
        "settings": r"""quantum field theory; Yang-Mills theory; quantum electrodynamics;
            Chern-Simons theory; the $O(N)$ model; $\phi^4$ theory; three-dimensional conformal
            field theory; the Schwinger model; non-commutative field theory; the Gross-Neveu model;
            thermal field theory; the Landau gauge; scalar field theory; the Thirring model; the
            light-front formulation; $SU(N)$ gauge theory; the minimal models; Liouville theory""",
        "quantities": r"""beta function; effective potential; trace anomaly; spectral density;
            scaling dimension; operator product expansion; two-point function; vacuum energy; mass
            gap; Wilson coefficient; Casimir energy; $S$-matrix; conformal anomaly; effective
            coupling; four-point correlator; vacuum expectation value; chiral anomaly; gluon
            propagator; ground state degeneracy; defect entropy""",
        "methods": r"""the conformal bootstrap; the renormalization group; dimensional
            regularization; unitarity cuts; the large $N$ expansion; heat kernel techniques; the
            $\epsilon$ expansion; the background field method; BRST cohomology; zeta function
            regularization; resurgent transseries; BCFW recursion; the Schwinger-Dyson equations;
            the functional renormalization group; Ward identities; the Batalin-Vilkovisky formalism;
            crossing symmetry; the path integral""",
        "phenomena": r"""confinement; spontaneous symmetry breaking; asymptotic freedom; anomaly
            matching; vacuum polarization; dynamical mass generation; infrared divergence
            cancellation; color-kinematics duality; particle-vortex duality; bosonization; the
            Casimir effect; dimensional transmutation; vacuum decay; screening; the Schwinger
            effect; anyon condensation; false vacuum tunnelling; soft factorization""",
        "results": r"""the beta function vanishes at two loops; the theory flows to an interacting
            fixed point; the anomaly is cancelled by a local counterterm; the ultraviolet
            divergences are absent; the amplitude factorizes in the soft limit; a mass gap opens at
            strong coupling; the symmetry is restored at high temperature; the perturbative series
            is Borel summable; the correlators satisfy a differential equation; the gauge dependence
            drops out of physical quantities; the vacuum is unstable under pair production; the
            ghosts decouple from the physical sector; the defect entropy decreases along the flow;
            the one-form symmetry has a mixed anomaly; unitarity is maintained at all orders; the
            propagator develops complex poles""",
        "goals": r"""the structure of perturbation theory; the bootstrap program; generalized
            symmetries; confining gauge theories; multi-loop calculations; the classification of
            fixed points; quantum simulation of gauge theories; the double copy; axiomatic field
            theory; infrared physics; the strong coupling problem; dualities in three dimensions;
            the c-theorem; renormalization on curved backgrounds; the infrared triangle; soliton
            dynamics""",
        "cases": r"""the gauge group $SU(2)$; the Ising universality class; two spacetime
            dimensions; the planar limit; six external legs; $d=3$; massless quarks; the Wess-Zumino
            model; finite temperature; the adjoint representation; large $N_f$; $d=4-\epsilon$; four
            loops; the sine-Gordon model; the complex Langevin equation; the abelian Higgs model;
            scalar electrodynamics; the two-sphere""",
    },
    "gravity": {
        "objects": r"""black holes; black branes; event horizons; Hawking quanta; minimal surfaces;
            black rings; de Sitter vacua; wormholes; asymptotic symmetries; gravitons; entanglement
            wedges; shock waves; microstates; replica wormholes; BTZ geometries; baby universes;
            apparent horizons; soft modes; fuzzballs; Killing horizons""",
        "adjectives": r"""extremal; near-extremal; charged; rotating; asymptotically flat;
            evaporating; asymptotically AdS; higher-dimensional; dilatonic; quantum-corrected;
            traversable; near-horizon; two-sided; hairy; planar AdS; eternal; superradiant;
            regular""",
        "settings": r"""anti-de Sitter space; Einstein-Maxwell theory; semiclassical gravity; JT
            gravity; quantum gravity; de Sitter space; the Kerr/CFT correspondence;
            three-dimensional gravity; Gauss-Bonnet gravity; the membrane paradigm; flat space
            holography; Lovelock gravity; the near-horizon region; massive gravity; the SYK model;
            the large $D$ limit; topologically massive gravity; asymptotic safety""",
        "quantities": r"""Bekenstein-Hawking entropy; Hawking temperature; entanglement entropy;
            Page curve; horizon area; holographic complexity; Lyapunov exponent; quasinormal
            spectrum; shear viscosity; greybody factor; Brown-York tensor; Wald entropy; spectral
            form factor; ADM mass; reflected entropy; boundary stress tensor; Renyi entropy; surface
            gravity""",
        "methods": r"""the island formula; the Ryu-Takayanagi prescription; the Euclidean path
            integral; holographic renormalization; the covariant phase space formalism; the replica
            trick; the Cardy formula; the attractor mechanism; the fluid/gravity correspondence; the
            Noether charge method; the brick wall model; the quantum focusing conjecture; the
            membrane approach; black hole perturbation theory; the first law of entanglement; the
            entropy function; tensor networks; the tunnelling picture""",
        "phenomena": r"""Hawking radiation; black hole evaporation; information loss; quantum chaos;
            the Hawking-Page transition; holographic superconductivity; cosmic censorship; fast
            scrambling; gravitational collapse; the memory effect; horizon formation; bulk
            reconstruction; Hawking pair creation; the Gregory-Laflamme instability; superradiance;
            horizon fragmentation; black hole complementarity; thermalization""",
        "results": r"""the entropy scales with the horizon area; the Page curve is reproduced by an
            island; the first law of thermodynamics holds; the chaos bound is saturated; the
            viscosity bound is violated; the extremal limit is singular; the information is
            recovered after the Page time; the horizon is smooth for the infalling observer; a
            logarithmic correction to the entropy appears; the black hole undergoes a van der Waals
            transition; the asymptotic charges form a Virasoro algebra; the near-horizon geometry
            contains an $AdS_2$ factor; the complexity grows linearly at late times; the Hawking
            flux is thermal up to greybody factors; the specific heat becomes positive; the ensemble
            average restores factorization""",
        "goals": r"""the information paradox; black hole thermodynamics; de Sitter holography; the
            firewall puzzle; emergent spacetime; quantum information in gravity; holographic matter;
            the factorization problem; the fate of evaporating black holes; the final state of
            collapse; the membrane paradigm at large $D$; the entropy of cosmological horizons; the
            black hole interior; the arrow of time; hydrodynamic transport; the Weyl anomaly""",
        "cases": r"""the BTZ black hole; Reissner-Nordstrom geometries; the extremal Kerr geometry;
            $AdS_2$; the Myers-Perry family; the static patch; five dimensions; $AdS_3$; the D1-D5
            system; a spherical entangling surface; the Schwarzschild-AdS background; the
            thermofield double; the CGHS model; the Taub-NUT solution; the STU model; the Rindler
            wedge; a disjoint pair of intervals; the Gibbons-Hawking ensemble""",
    },
    "phenomenology": {
        "objects": r"""top quarks; sterile neutrinos; Higgs bosons; dark photons; leptoquarks;
            parton distributions; $B$ mesons; axions; squarks; vector-like quarks; exotic hadrons;
            jets; charmonia; weakly interacting particles; $Z'$ bosons; gluinos""",
        "adjectives": r"""right-handed; long-lived; electroweak; flavour-changing; next-to-leading;
            boosted; heavy; lepton-flavour violating; pseudo-Dirac; CP-odd; electrophobic;
            TeV-scale""",
        "settings": r"""the Standard Model; the minimal supersymmetric standard model; QCD; the
            two-Higgs-doublet model; heavy-ion collisions; left-right symmetric models; the seesaw
            framework; chiral perturbation theory; the quark-gluon plasma; soft-collinear effective
            theory; the scotogenic model; deep inelastic scattering""",
        "quantities": r"""branching ratio; production cross section; neutrino mass matrix; CP
            asymmetry; mixing angle; Higgs self-coupling; decay width; electric dipole moment; relic
            density; transverse momentum spectrum; forward-backward asymmetry; fine-tuning
            measure""",
        "methods": r"""QCD sum rules; Monte Carlo simulations; lattice QCD inputs; a global fit; jet
            substructure; NLO calculations; the parton shower; heavy quark effective theory; an
            effective Lagrangian; boosted decision trees; the dipole formalism; parton-level
            reweighting""",
        "phenomena": r"""neutrino oscillation; electroweak symmetry breaking; CP violation;
            leptogenesis; dark matter annihilation; proton decay; jet quenching; lepton flavour
            violation; hadronization; resonant production; baryon number violation; gluon
            saturation""",
        "results": r"""the signal can be seen at the high-luminosity LHC; the bounds on the scalar
            mass are relaxed; the scale uncertainty is reduced by half; large parts of the parameter
            space are excluded; the normal mass ordering is favoured; the muon anomaly can be
            accommodated; the observed relic density is obtained; the branching ratio is enhanced by
            new physics; the tension with data is alleviated; the next-to-leading corrections are
            sizeable; the lightest neutralino is a viable candidate""",
        "goals": r"""searches at the LHC; future lepton colliders; neutrino experiments; direct
            detection; flavour physics; precision electroweak tests; grand unification; the
            hierarchy problem; $B$ factories; the origin of flavour; the muon $g-2$ anomaly; the
            strong CP problem""",
        "cases": r"""the inverted hierarchy; the decay $B \to K^* \ell^+ \ell^-$; the process $pp
            \to t\bar{t}h$; low $\tan\beta$; the $\Lambda_b$ baryon; a centre-of-mass energy of 14
            TeV; three active neutrinos; the bottom quark; an $SU(5)$ completion; semi-leptonic
            modes; diphoton final states; a light singlet scalar""",
    },
    "relativity": {
        "objects": r"""gravitational waves; neutron star mergers; scalar perturbations; primordial
            fluctuations; spacetime singularities; discrete geometries; compact binaries; cosmic
            strings; test particles; spin networks; boson stars; null geodesics; trapped surfaces;
            Bianchi cosmologies; gravitational lenses; exotic compact objects""",
        "adjectives": r"""spherically symmetric; anisotropic; homogeneous; vacuum; tensorial; slowly
            rotating; inspiralling; axisymmetric; inflationary; self-gravitating; inhomogeneous;
            post-Newtonian""",
        "settings": r"""general relativity; $f(R)$ gravity; loop quantum cosmology; Brans-Dicke
            theory; the early universe; Horndeski gravity; the Friedmann universe; teleparallel
            gravity; the Kerr spacetime; loop quantum gravity; bimetric gravity; the
            Lemaitre-Tolman-Bondi model""",
        "quantities": r"""cosmological constant; Hubble parameter; gravitational waveform; scalar
            spectral index; dark energy equation of state; tidal deformability; Weyl tensor; energy
            density; perihelion shift; tensor-to-scalar ratio; black hole shadow; deflection
            angle""",
        "methods": r"""numerical relativity; the effective one-body approach; the 3+1 decomposition;
            dynamical systems analysis; matched filtering; the Newman-Penrose formalism;
            cosmological perturbation theory; the ADM formalism; the self-force approach;
            post-Newtonian theory; Regge calculus; Bayesian parameter estimation""",
        "phenomena": r"""inflation; dark energy; late-time acceleration; the big bounce; reheating;
            gravitational lensing; frame dragging; structure formation; spontaneous scalarization;
            gravitational radiation; quintessence; geodesic completeness""",
        "results": r"""the initial singularity is replaced by a bounce; the energy conditions are
            satisfied everywhere; the universe enters an accelerated phase; the model agrees with
            supernova observations; the waveform differs only in the late inspiral; the solution is
            stable under radial perturbations; a graceful exit from inflation takes place; general
            relativity is recovered in the solar system; the tensor modes propagate at the speed of
            light; the shadow is larger than in the Kerr case; the constraint algebra closes""",
        "goals": r"""the singularity problem; the Hubble tension; gravitational wave astronomy;
            tests of general relativity; inflationary model building; the cosmological constant
            problem; modified gravity; the LISA mission; the initial value problem; quantum
            cosmology; pulsar timing arrays; the nature of dark energy""",
        "cases": r"""the Kerr metric; Bianchi type I; a perfect fluid; the Schwarzschild background;
            a flat Robertson-Walker metric; GW170817; equal-mass binaries; the Starobinsky model;
            the Reissner-Nordstrom-de Sitter metric; a thin shell; exponential potentials; the
            quadrupole order""",
    },
    "biology": {
        "objects": r"""gene regulatory networks; protein sequences; cortical neurons; bacterial
            colonies; metabolic pathways; epidemic models; cell populations; membrane proteins;
            transcription factors; tumour cells; phylogenetic trees; ion channels; microbial
            communities; spike trains; immune receptors; RNA molecules""",
        "adjectives": r"""eukaryotic; stochastic; inhibitory; heterogeneous; well-mixed; evolving;
            multicellular; drug-resistant; spatially structured; infected; genome-wide;
            age-structured""",
        "settings": r"""the visual cortex; the cell cycle; the human genome; natural populations;
            the immune system; gene expression; the tumour microenvironment; spatial ecology;
            systems biology; the gut microbiome; protein folding; the hippocampus""",
        "quantities": r"""mutation rate; firing rate; basic reproduction number; fitness landscape;
            growth rate; binding affinity; extinction probability; expression level; contact map;
            folding rate; population size; synaptic weight""",
        "methods": r"""single-cell sequencing; molecular dynamics simulations; compartmental models;
            flux balance analysis; coalescent theory; agent-based simulations; multiple sequence
            alignments; calcium imaging; adaptive dynamics; mass spectrometry; the Moran process;
            the chemical master equation""",
        "phenomena": r"""natural selection; synaptic plasticity; disease transmission; cell
            differentiation; genetic drift; antibiotic resistance; chemotaxis; pattern formation;
            horizontal gene transfer; herd immunity; neural coding; cooperation""",
        "results": r"""the outbreak dies out below a critical density; expression noise is buffered
            by feedback; a small number of mutations confers resistance; cooperation persists in
            structured populations; the firing patterns encode position; the binding site is
            conserved across species; coexistence is stabilized by migration; early vaccination
            halves the final size; growth is limited by ribosome synthesis; the network recovers
            after targeted lesions; the tumour escapes immune control""",
        "goals": r"""drug discovery; public health; vaccine design; synthetic biology; cancer
            therapy; conservation; personalized medicine; neuroscience; disease surveillance;
            protein engineering; evolutionary theory; crop breeding""",
        "cases": r"""budding yeast; Escherichia coli; the seasonal flu; zebrafish larvae; the
            malaria parasite; human patients; SARS-CoV-2; the lac operon; fruit flies; mouse cortex;
            two competing species; the p53 pathway""",
    },
    "computing": {
        "objects": r"""neural networks; language models; graph algorithms; large data sets;
            transformers; mobile robots; distributed systems; knowledge graphs; image classifiers;
            wireless networks; software repositories; recommender systems; point clouds; smart
            contracts; user queries; embedded devices""",
        "adjectives": r"""pre-trained; scalable; end-to-end; convolutional; multimodal; adversarial;
            recurrent; privacy-preserving; decentralized; lightweight; real-world;
            energy-efficient""",
        "settings": r"""deep learning; computer vision; natural language processing; reinforcement
            learning; cloud computing; the Internet of Things; machine translation; federated
            learning; autonomous driving; software engineering; edge computing; information
            retrieval""",
        "quantities": r"""classification accuracy; training loss; inference latency; word error
            rate; computational cost; memory footprint; throughput; attention map; embedding space;
            F1 score; query complexity; communication overhead""",
        "methods": r"""self-supervised learning; contrastive pre-training; stochastic gradient
            descent; knowledge distillation; data augmentation; graph neural architectures; policy
            gradients; retrieval-augmented generation; integer programming; formal verification;
            low-rank adaptation; diffusion models""",
        "phenomena": r"""overfitting; catastrophic forgetting; domain shift; object detection;
            semantic segmentation; speech recognition; network congestion; code generation;
            hallucination; load balancing; mode collapse; concept drift""",
        "results": r"""the proposed model outperforms strong baselines; accuracy improves by several
            points; training time is cut in half; the learned features transfer to unseen domains;
            larger models are more robust; the algorithm runs in near-linear time; performance
            degrades gracefully under noise; fewer labels are needed; attention heads can be pruned;
            the attack succeeds with few queries; latency stays within the budget""",
        "goals": r"""real-time deployment; low-resource languages; trustworthy AI; medical imaging;
            question answering; human-robot interaction; large-scale search; network security; video
            understanding; open-source tooling; program synthesis; resource-limited hardware""",
        "cases": r"""ImageNet; the GLUE benchmark; low-resource settings; a simulated warehouse; two
            public benchmarks; the MS COCO data set; sparse graphs; long documents; Atari games;
            three programming languages; street scenes; the few-shot regime""",
    },
    "statistics": {
        "objects": r"""Gaussian processes; high-dimensional data; causal effects; time series;
            random forests; longitudinal studies; covariance matrices; latent variables; survival
            times; Markov chains; clinical trials; kernel estimators; missing values; point
            processes; prior distributions; regression models""",
        "adjectives": r"""Bayesian; nonparametric; heavy-tailed; sparse; hierarchical; censored;
            semiparametric; multivariate; doubly robust; unbalanced; misspecified; exchangeable""",
        "settings": r"""observational studies; linear regression; causal inference; survival
            analysis; online learning; spatial statistics; extreme value theory; multiple testing;
            functional data analysis; experimental design; econometrics; mixture modelling""",
        "quantities": r"""posterior distribution; convergence rate; likelihood ratio; sample size;
            treatment effect; false discovery rate; minimax risk; regression coefficient; confidence
            band; effective dimension; marginal likelihood; tail index""",
        "methods": r"""variational inference; Markov chain Monte Carlo; cross-validation; the
            bootstrap; propensity scores; empirical Bayes; the lasso; conformal prediction; the EM
            algorithm; sequential Monte Carlo; instrumental variables; quantile regression""",
        "phenomena": r"""model misspecification; selection bias; posterior contraction; confounding;
            overdispersion; sampling variability; measurement error; multicollinearity; label noise;
            data censoring; regularization; double descent""",
        "results": r"""the estimator is consistent and asymptotically normal; the credible sets have
            correct coverage; the test controls the error rate; the bias decays faster than the
            variance; the minimax rate is attained; shrinkage lowers the risk; the sampler mixes
            rapidly; the treatment effect is identified; the intervals remain valid under
            dependence; variable selection is consistent; the penalty can be tuned from the data""",
        "goals": r"""uncertainty quantification; variable selection; policy evaluation; risk
            assessment; official statistics; model comparison; climate records; dimension reduction;
            anomaly detection; credit scoring; decision making; reproducible research""",
        "cases": r"""generalized linear models; electronic health records; a growing number of
            covariates; small samples; the Cox model; stationary series; household surveys; two
            treatment arms; log-concave densities; the Ising prior; panel data; binary outcomes""",
    },
    "condensed": {
        "objects": r"""topological insulators; spin chains; quantum dots; superconducting films;
            carbon nanotubes; ultracold gases; Weyl semimetals; spin liquids; graphene sheets;
            magnetic impurities; optical lattices; polymer chains; granular packings; Majorana
            modes; perovskite crystals; colloidal suspensions""",
        "adjectives": r"""disordered; quasi-one-dimensional; antiferromagnetic; layered; doped;
            frustrated; valley-polarized; many-body localized; twisted; polycrystalline; strained;
            driven""",
        "settings": r"""the Hubbard model; the Kondo lattice; high-$T_c$ superconductors; twisted
            bilayer graphene; the quantum Hall regime; the Heisenberg model; heavy-fermion
            compounds; Bose-Einstein condensates; density functional theory; the Kitaev model; soft
            matter; spin ice""",
        "quantities": r"""critical temperature; magnetization; band gap; optical conductivity;
            density of states; correlation length; Berry curvature; thermal conductance; superfluid
            stiffness; Fermi surface; dynamic structure factor; Chern number""",
        "methods": r"""density functional calculations; quantum Monte Carlo; dynamical mean-field
            theory; angle-resolved photoemission; neutron scattering; exact diagonalization; the
            density matrix renormalization group; scanning tunnelling microscopy; linear response
            theory; Raman spectroscopy; transport measurements; slave-boson mean-field theory""",
        "phenomena": r"""superconductivity; the metal-insulator transition; Anderson localization;
            magnetic order; the quantum Hall effect; the Kondo effect; glassy relaxation; charge
            density wave order; ferroelectricity; spin-orbit coupling; jamming; pair density
            modulation""",
        "results": r"""the gap closes at a critical field; the edge states survive weak disorder;
            the transition is of first order; the resistivity grows linearly with temperature; the
            order parameter has nodes; the magnon spectrum is gapless; pressure suppresses the
            magnetic order; the flat bands favour pairing; the scaling exponents are universal;
            doping shifts the Fermi level; the glass ages logarithmically""",
        "goals": r"""spintronic devices; quantum materials; unconventional superconductivity; energy
            storage; quantum simulation; thermoelectric applications; topological matter;
            optoelectronics; non-equilibrium physics; quantum magnetism; photovoltaics;
            valleytronics""",
        "cases": r"""the square lattice; MnSi; half filling; the kagome lattice; thin films of
            Bi$_2$Se$_3$; iron pnictides; the honeycomb lattice; Sr$_2$RuO$_4$; a single impurity;
            low temperatures; LaAlO$_3$ interfaces; the triangular ladder""",
    },
    "astronomy": {
        "objects": r"""spiral galaxies; active nuclei; molecular clouds; exoplanets; white dwarfs;
            galaxy clusters; gamma-ray bursts; globular clusters; protoplanetary discs; supernova
            remnants; quasars; red giants; radio pulsars; dwarf galaxies; hot Jupiters; X-ray
            binaries""",
        "adjectives": r"""metal-poor; star-forming; high-redshift; nearby; accreting; dusty;
            luminous; transiting; obscured; early-type; magnetized; lensed""",
        "settings": r"""the Milky Way; the solar neighbourhood; the interstellar medium; the
            Galactic centre; the Local Group; the Large Magellanic Cloud; the intracluster medium;
            the epoch of reionization; the Orion nebula; the outer halo; stellar evolution; the
            Kuiper belt""",
        "quantities": r"""star formation rate; luminosity function; metallicity; stellar mass;
            rotation curve; X-ray luminosity; light curve; velocity dispersion; accretion rate;
            orbital period; initial mass function; dust temperature""",
        "methods": r"""ALMA observations; high-resolution spectroscopy; hydrodynamical simulations;
            Gaia astrometry; radial velocity measurements; population synthesis; deep near-infrared
            imaging; time-series photometry; stacking; radiative transfer models; VLBI imaging;
            asteroseismology""",
        "phenomena": r"""star formation; AGN feedback; mass loss; planet migration; galactic
            chemical enrichment; cosmic reionization; dust growth; tidal stripping; particle
            acceleration; stellar rotation; accretion; ram pressure stripping""",
        "results": r"""the disc is truncated by a companion; the emission is powered by accretion;
            the metallicity gradient flattens outwards; the jet is seen close to the line of sight;
            most of the mass lies in the halo; the planet has a low density; the outflow quenches
            the star formation; the variability follows the spin period; the dust is heated by young
            stars; the distance is revised downwards; the stream comes from a disrupted
            satellite""",
        "goals": r"""galaxy formation; planet searches; the cosmic distance ladder; stellar
            populations; multi-messenger astronomy; the James Webb Space Telescope; habitability;
            the growth of supermassive black holes; future radio surveys; Galactic archaeology;
            cosmic-ray physics; the Rubin Observatory""",
        "cases": r"""M31; the Crab pulsar; a sample of 120 stars; NGC 4151; the TRAPPIST-1 planets;
            the Perseus cluster; SN 1987A; the Coma cluster; the COSMOS field; HD 209458; redshifts
            above six; the Hyades""",
    },
    "mathematics": {
        "objects": r"""Riemannian manifolds; modular forms; finite groups; algebraic curves;
            elliptic equations; random walks; Banach spaces; vertex algebras; triangulated
            categories; prime ideals; hyperbolic surfaces; graph colorings; moduli spaces; integral
            operators; simplicial complexes; Hecke algebras""",
        "adjectives": r"""compact; smooth; projective; nilpotent; complete; perfect; Cohen-Macaulay;
            irreducible; non-Archimedean; measurable; quaternionic; self-adjoint""",
        "settings": r"""algebraic geometry; number theory; positive characteristic; derived
            categories; ergodic theory; the theory of partial differential equations; symplectic
            geometry; Hilbert spaces; extremal graph theory; representation theory; geometric group
            theory; free probability""",
        "quantities": r"""cohomology ring; fundamental group; spectral radius; Hausdorff dimension;
            Picard number; Euler class; chromatic number; Hilbert polynomial; Ricci curvature; zeta
            function; isoperimetric constant; characteristic polynomial""",
        "methods": r"""spectral sequences; a fixed point theorem; sieve methods; the maximum
            principle; geometric invariant theory; the circle method; Fourier analysis; equivariant
            cohomology; Morse theory; a compactness argument; Ricci flow; the probabilistic
            method""",
        "phenomena": r"""rigidity; homological stability; unique continuation; equidistribution;
            concentration of measure; ellipticity; blow-up; Koszul duality; amenability;
            hyperbolicity; phase mixing; stable convergence""",
        "results": r"""every such group is residually finite; the equation has a unique weak
            solution; the bound is sharp; the moduli space is connected; the converse fails in
            higher dimensions; the operator has compact resolvent; the sequence converges almost
            surely; the variety is rational; the category has enough injectives; the cohomology is
            torsion free; only finitely many exceptions occur""",
        "goals": r"""the Langlands program; a conjecture of Erdos; birational geometry;
            low-dimensional topology; the regularity problem; the classification problem; arithmetic
            statistics; optimal transport; noncommutative geometry; combinatorial optimization;
            index theory; rational points""",
        "cases": r"""abelian varieties; $\mathbb{P}^n$; the symmetric group $S_n$; Fano threefolds;
            bipartite graphs; $GL_n(\mathbb{F}_q)$; Lipschitz domains; genus two; planar maps; the
            Heisenberg group; cubic fields; the half-line""",
    },
    "quantum": {
        "objects": r"""entangled states; superconducting qubits; quantum circuits; trapped ions;
            single photons; quantum channels; stabilizer codes; quantum walks; open systems; optical
            cavities; quantum sensors; Rydberg atoms; squeezed states; Bell inequalities; ultrashort
            pulses; photonic crystals""",
        "adjectives": r"""noisy; fault-tolerant; bipartite; continuous-variable; dissipative;
            multipartite; phase-coherent; non-Markovian; high-dimensional; nonclassical; time-bin;
            multimode""",
        "settings": r"""quantum information theory; circuit QED; quantum key distribution; cavity
            optomechanics; nonlinear optics; the Jaynes-Cummings model; quantum metrology; adiabatic
            quantum computation; quantum thermodynamics; integrated photonics; measurement-based
            computation; the NISQ era""",
        "quantities": r"""gate fidelity; concurrence; coherence time; channel capacity; quantum
            Fisher information; error threshold; Wigner function; secret key rate; quantum discord;
            circuit depth; refractive index; Rabi frequency""",
        "methods": r"""variational quantum algorithms; quantum error correction; dynamical
            decoupling; randomized benchmarking; the Lindblad equation; homodyne detection; Grover
            search; state tomography; optimal control; semidefinite programming; Floquet
            engineering; weak measurements""",
        "phenomena": r"""decoherence; quantum entanglement; nonlocality; quantum teleportation;
            contextuality; spontaneous emission; mode locking; electromagnetically induced
            transparency; quantum advantage; crosstalk; steering; photon blockade""",
        "results": r"""the protocol is secure against collective attacks; entanglement is preserved
            under local noise; the fidelity exceeds the classical limit; the Heisenberg limit is
            reached; barren plateaus are avoided; the gate errors are below threshold; the
            inequality is violated by two qubits; the coherence time is doubled; the channel is not
            degradable; a single ancilla suffices; the pulse shape is robust""",
        "goals": r"""quantum computing; quantum networks; precision sensing; quantum cryptography;
            the foundations of quantum mechanics; quantum repeaters; atomic clocks; near-term
            devices; quantum chemistry; integrated light sources; quantum memories; loophole-free
            tests""",
        "cases": r"""the surface code; two qubits; Gaussian states; nitrogen-vacancy centres; GHZ
            states; the amplitude damping channel; a three-level atom; five nodes; transmon devices;
            cat states; qutrits; whispering gallery modes""",
    },
}

# Topics of one field share its sentence rules.
FIELDS: dict[str, str] = {
    "strings": "theory",
    "qft": "theory",
    "gravity": "theory",
    "relativity": "theory",
    "phenomenology": "experiment",
    "condensed": "experiment",
    "astronomy": "experiment",
    "quantum": "experiment",
    "biology": "life",
    "computing": "computing",
    "statistics": "computing",
    "mathematics": "proof",
}

PHRASES: dict[str, tuple[str, ...]] = {
    "np": ("{adjectives} {objects}", "{objects}"),
    "qp": ("the {quantities} of {np}", "the {quantities}"),
    "finding": (
        "{results}",
        "{results} once {phenomena} is taken into account",
        "{results}, in contrast to earlier work on {goals}",
    ),
}

# The order of a text: each kind of sentence leads to these kinds, whatever the topic.
MOVES: dict[str, dict[str, float]] = {
    "start": {"aim": 0.55, "background": 0.45},
    "background": {"aim": 0.85, "background": 0.15},
    "aim": {"method": 0.64, "result": 0.325, "end": 0.035},
    "method": {"result": 0.6, "method": 0.4},
    "result": {"closing": 0.46, "result": 0.54},
    "closing": {"end": 0.78, "closing": 0.22},
}

# kind -> field -> rules, from frequent to rare. "shared" rules belong to every topic;
# no move leads to "title", whose rules make titles.
RULES: dict[str, dict[str, tuple[str, ...]]] = {
    "background": {
        "shared": (
            "The study of {np} in {settings} has a long history.",
            "Understanding {phenomena} in {settings} remains an open problem.",
            "In recent years {np} have become central to the study of {phenomena}.",
            "Recent progress on {goals} has renewed interest in {np}.",
            "Much of what is known about {qp} rests on {methods}.",
            "Little is known about {phenomena} beyond {cases}.",
            "It has long been suspected that {results}.",
            "There is growing evidence that {results}.",
            "Can {np} account for {phenomena}?",
            "What determines {qp} in {settings}?",
            "Despite many efforts, a complete account of {phenomena} is still missing.",
            "The link between {np} and {phenomena} is well understood for {cases}.",
        ),
        "theory": (
            "In {settings}, {np} are expected to control {qp}.",
            "A consistent quantum description of {np} has so far been limited to {cases}.",
            "Symmetry arguments in {settings} suggest that {results}.",
            "It is an old idea that {phenomena} may be encoded in {qp}.",
        ),
        "experiment": (
            "Measurements of {qp} offer a sensitive probe of {phenomena}.",
            "The latest data on {np} call for a better description of {phenomena}.",
            "Precise predictions for {np} are needed for {goals}.",
            "Several anomalies in {settings} hint at {phenomena}.",
        ),
        "life": (
            "Living systems rely on {np} to cope with {phenomena}.",
            "How {phenomena} shapes {qp} is a central question in biology.",
            "Experiments on {cases} have revealed an unexpected role of {np}.",
        ),
        "computing": (
            "State-of-the-art systems for {goals} depend heavily on {np}.",
            "Existing approaches to {phenomena} require large amounts of annotated data.",
            "In practice, {np} often suffer from {phenomena}.",
        ),
        "proof": (
            "Let $X$ be a space attached to {cases} and let $f$ be a map that respects {qp}.",
            "A classical theorem states that {results}.",
            "The theory of {np} goes back to work on {goals}.",
        ),
    },
    "aim": {
        "shared": (
            "We study {np} in {settings}.",
            "In this paper we investigate {qp} in {settings}.",
            "We present a new approach to {phenomena} based on {methods}.",
            "We consider {np} and their role in {phenomena}.",
            "This paper is devoted to {phenomena} in {settings}.",
            "We propose a description of {np} in terms of {qp}.",
            "We revisit the problem of {phenomena} for {cases}.",
            "In this work we explore how {phenomena} arises in {settings}.",
            "The aim of this work is to understand {qp}.",
            "We analyze {np} with a view towards {goals}.",
            "Motivated by {goals}, we examine {qp} in {settings}.",
            "We report on recent results on {phenomena} in {settings}.",
        ),
        "theory": (
            "We construct {np} in {settings} and compute {qp}.",
            "We derive {qp} in {settings} using {methods}.",
            "We show that {phenomena} in {settings} is governed by {np}.",
            "We conjecture a duality between {np} and {settings}.",
            "We classify {np} that preserve the symmetries of {settings}.",
        ),
        "experiment": (
            "We present a measurement of {qp} in {settings}.",
            "We calculate {qp} in {settings} and compare it with recent data.",
            "We discuss the prospects of observing {phenomena} through {np}.",
            "We perform a detailed analysis of {np} in the light of {goals}.",
        ),
        "life": (
            "We introduce a mathematical model of {phenomena} in {settings}.",
            "Here we ask how {np} respond to {phenomena}.",
            "Here we combine theory and experiment to measure {qp} in {cases}.",
        ),
        "computing": (
            "We introduce a novel framework for {phenomena} that combines {np} with {methods}.",
            "This paper addresses {phenomena} in {settings} by means of {methods}.",
            "We release a new benchmark for {goals} built from {np}.",
        ),
        "proof": (
            "We prove that {results}.",
            "We give a short proof of {phenomena} for {cases}.",
            "We characterize {np} by {qp}.",
        ),
    },
    "method": {
        "shared": (
            "Our approach relies on {methods}.",
            "Using {methods}, we compute {qp}.",
            "We apply {methods} to {np} and extract {qp}.",
            "The analysis is based on {methods} and is carried out for {cases}.",
            "The main tool is provided by {methods}, adapted here to {np}.",
            "To this end we combine {methods} with a careful treatment of {phenomena}.",
            "Special attention is paid to {phenomena} for {cases}.",
            "We also take into account the effect of {phenomena} on {qp}.",
            "Starting from {methods}, we obtain an expression for {qp}.",
            "As a first step we restrict ourselves to {cases}.",
        ),
        "theory": (
            "Working to leading order in {settings}, we evaluate {qp} by means of {methods}.",
            "The boundary conditions of {np} are fixed by {methods}.",
            "We solve the equations of motion for {cases} and read off {qp}.",
            "The calculation is organized around {np} and their moduli.",
        ),
        "experiment": (
            "The background from {np} is estimated with {methods}.",
            "We scan the parameter space of {settings} and constrain {qp}.",
            "The data were taken for {cases} and analysed using {methods}.",
            "Theoretical uncertainties on {qp} are estimated with {methods}.",
        ),
        "life": (
            "Parameters are inferred from data on {cases} using {methods}.",
            "We simulate {np} over many generations and record {qp}.",
            "We validate the model against observations of {phenomena} in {cases}.",
        ),
        "computing": (
            "Our method learns {qp} from {np} without supervision.",
            "The architecture integrates {methods} with a simple loss on {qp}.",
            "We train on {cases} and evaluate on held-out {objects}.",
        ),
        "proof": (
            "The proof uses {methods} together with an estimate of {qp}.",
            "The argument proceeds by reduction to {cases}.",
            "A crucial lemma bounds {qp} from below.",
        ),
    },
    "result": {
        "shared": (
            "We find that {finding}.",
            "In particular, we show that {finding}.",
            "It is shown that {finding}.",
            "The results indicate that {finding}.",
            "As a consequence, {finding}.",
            "We demonstrate that {results} for {cases}.",
            "We further find that {qp} is sensitive to {phenomena}.",
            "For {cases}, we obtain {qp} in closed form.",
            "Surprisingly, {np} turn out to be insensitive to {phenomena}.",
            "This leads to a simple relation between {qp} and {phenomena}.",
            "Moreover, {np} exhibit {phenomena} in a wide range of parameters.",
        ),
        "theory": (
            "At strong coupling, {finding}.",
            "The resulting {objects} are in one-to-one correspondence with those in {settings}.",
            "We verify that {qp} is invariant under the full symmetry of {settings}.",
            "In the appropriate limit our expression for {qp} reduces to that of {cases}.",
            "This provides a non-trivial check of {phenomena} in {settings}.",
        ),
        "experiment": (
            "The measured value of {qp} in {settings} agrees with expectations.",
            "At the current level of precision, {finding}.",
            "We set new upper limits on {qp} for {cases}.",
            "No significant evidence for {phenomena} is found in {settings}.",
        ),
        "life": (
            "Our model predicts that {finding}.",
            "In agreement with experiments on {cases}, {finding}.",
            "Variation in {qp} is explained by {phenomena} alone.",
        ),
        "computing": (
            "Experiments on {cases} show that {finding}.",
            "Compared with previous work on {goals}, our approach improves {qp}.",
            "An ablation study confirms the importance of {methods} for {goals}.",
        ),
        "proof": (
            "If the ambient space is complete then {finding}.",
            "As a corollary we determine {qp} for {cases}.",
            "We also construct examples for which {phenomena} fails.",
        ),
    },
    "closing": {
        "shared": (
            "We discuss implications for {goals}.",
            "Our results shed new light on {phenomena} in {settings}.",
            "We comment on possible applications to {goals}.",
            "Finally, we discuss the extension of our results to {cases}.",
            "These findings open the way to {goals}.",
            "The relevance of {np} for {goals} is also discussed.",
            "We conclude with some open questions about {phenomena}.",
            "Possible generalizations to {np} are briefly outlined.",
            "This work is a step towards a better understanding of {qp}.",
            "Consequences for {phenomena} in {settings} are pointed out.",
        ),
        "theory": (
            "We speculate on the interpretation of {np} in {settings}.",
            "This suggests that {phenomena} is a generic feature of {settings}.",
            "We end with remarks on the quantum origin of {phenomena}.",
        ),
        "experiment": (
            "Future measurements of {qp} will test this scenario.",
            "These results are of direct interest for {goals}.",
            "Our predictions for {cases} are within reach of upcoming experiments.",
        ),
        "life": (
            "Taken together, these results suggest new strategies for {goals}.",
            "We expect similar principles to apply to {np} in other organisms.",
        ),
        "computing": (
            "Code and data for {goals} are made publicly available.",
            "We hope that this work will foster research on {phenomena} in {settings}.",
        ),
        "proof": (
            "This answers a question about {goals}.",
            "We end with a list of open problems concerning {np}.",
        ),
    },
    "title": {
        "shared": (
            "{adjectives} {objects} and {phenomena} in {settings}",
            "On {qp}",
            "{phenomena} in {settings}",
            "{np} and {phenomena}",
            "{objects} in {settings}",
            "Notes on {np} in {settings}",
            "{phenomena} from {methods}",
            "{np}, {phenomena} and {goals}",
            "Towards {goals}: {np} beyond {cases}",
            "{methods} and {qp} for {cases}",
            "{qp} in {settings}",
        ),
    },
}

# The mixture of topics behind a category, or else behind its archive.
SOURCES: dict[str, dict[str, float]] = {
    "hep-th": {"strings": 0.54, "qft": 0.25, "gravity": 0.21},
    "hep-ph": {"phenomenology": 0.62, "qft": 0.28, "relativity": 0.06, "gravity": 0.04},
    "gr-qc": {"relativity": 0.5, "gravity": 0.4, "qft": 0.1},
    "hep-ex": {"phenomenology": 0.95, "computing": 0.05},
    "hep-lat": {"qft": 0.55, "phenomenology": 0.45},
    "nucl-th": {"phenomenology": 0.6, "condensed": 0.25, "qft": 0.15},
    "nucl-ex": {"phenomenology": 0.85, "condensed": 0.15},
    "math-ph": {"mathematics": 0.6, "qft": 0.2, "quantum": 0.15, "strings": 0.05},
    "math.ST": {"statistics": 0.7, "mathematics": 0.3},
    "math.AG": {"mathematics": 0.97, "strings": 0.03},
    "math.QA": {"mathematics": 0.85, "qft": 0.12, "strings": 0.03},
    "math": {"mathematics": 0.95, "statistics": 0.05},
    "astro-ph.CO": {"relativity": 0.5, "astronomy": 0.5},
    "astro-ph": {"astronomy": 0.9, "relativity": 0.1},
    "cond-mat": {"condensed": 0.88, "quantum": 0.1, "qft": 0.02},
    "quant-ph": {"quantum": 0.9, "condensed": 0.08, "qft": 0.02},
    "physics": {"quantum": 0.4, "condensed": 0.35, "astronomy": 0.1, "biology": 0.1, "qft": 0.05},
    "nlin": {"condensed": 0.5, "mathematics": 0.4, "biology": 0.1},
    "q-bio": {"biology": 0.82, "statistics": 0.13, "computing": 0.05},
    "cs": {"computing": 0.78, "statistics": 0.16, "mathematics": 0.06},
    "eess": {"computing": 0.8, "statistics": 0.2},
    "stat": {"statistics": 0.75, "computing": 0.25},
    "econ": {"statistics": 0.8, "mathematics": 0.2},
    "q-fin": {"statistics": 0.7, "mathematics": 0.3},
}

# Records per primary category. hep-th, hep-ph, gr-qc and the totals of cs.* (withdrawn papers
# included) and q-bio.* are those of snapshot v193 (2,542,615 records; shared facts, section 1);
# the others are plausible round numbers that make up the same total.
CATEGORIES: dict[str, int] = {
    "hep-th": 105_617, "hep-ph": 132_678, "gr-qc": 63_776,
    "hep-ex": 22_000, "hep-lat": 19_000, "nucl-th": 30_000, "nucl-ex": 11_000,
    "math-ph": 27_000, "quant-ph": 96_000,
    "astro-ph": 82_000, "astro-ph.GA": 60_000, "astro-ph.CO": 50_000, "astro-ph.HE": 49_000,
    "astro-ph.SR": 42_000, "astro-ph.EP": 28_000, "astro-ph.IM": 14_000,
    "cond-mat": 11_000, "cond-mat.mtrl-sci": 74_000, "cond-mat.mes-hall": 71_000,
    "cond-mat.str-el": 54_000, "cond-mat.stat-mech": 40_000, "cond-mat.supr-con": 35_000,
    "cond-mat.soft": 33_000, "cond-mat.quant-gas": 15_000, "cond-mat.dis-nn": 14_000,
    "math.AP": 46_000, "math.CO": 45_000, "math.PR": 41_000, "math.AG": 38_000,
    "math.OC": 32_000, "math.NT": 32_000, "math.DG": 28_000, "math.NA": 25_000,
    "math.FA": 26_000, "math.DS": 26_000, "math.GT": 22_000, "math.GR": 18_000,
    "math.RT": 17_000, "math.CA": 18_000, "math.ST": 15_000, "math.AT": 12_000,
    "math.QA": 10_000, "math.RA": 14_000, "math.LO": 12_000,
    "physics.optics": 37_000, "physics.flu-dyn": 22_000, "physics.chem-ph": 17_000,
    "physics.soc-ph": 15_000, "physics.plasm-ph": 14_000, "physics.atom-ph": 14_000,
    "physics.app-ph": 14_000, "physics.gen-ph": 13_000, "physics.ins-det": 12_000,
    "physics.comp-ph": 9_000, "physics.bio-ph": 9_000, "physics.hist-ph": 6_000,
    "nlin.CD": 9_000, "nlin.SI": 5_821,
    "q-bio.NC": 9_200, "q-bio.PE": 8_100, "q-bio.QM": 5_900, "q-bio.BM": 3_100,
    "q-bio.MN": 1_500, "q-bio.GN": 923,
    "cs.LG": 120_000, "cs.CV": 108_000, "cs.CL": 61_000, "cs.IT": 33_000, "cs.RO": 28_000,
    "cs.AI": 26_000, "cs.CR": 25_000, "cs.DS": 19_000, "cs.SE": 19_000, "cs.NI": 16_000,
    "cs.DC": 15_000, "cs.HC": 14_000, "cs.LO": 13_000, "cs.IR": 13_000, "cs.SI": 12_000,
    "cs.CY": 8_000, "cs.GT": 6_000,
    "stat.ME": 25_000, "stat.ML": 21_000, "stat.AP": 12_000,
    "eess.SP": 17_000, "eess.SY": 16_000, "eess.IV": 12_000, "eess.AS": 10_000,
    "econ.EM": 3_000, "q-fin.ST": 9_000,
}  # fmt: skip

# First month of a category or else of its archive, and growth: submissions rise as
# (time since then)^(growth - 1). Until March 2007 the identifier begins with the archive.
ERAS: dict[str, tuple[int, int, float]] = {
    "hep-th": (1992, 1, 1.25), "hep-ph": (1992, 3, 1.2), "gr-qc": (1992, 7, 1.7),
    "hep-ex": (1994, 4, 1.6), "hep-lat": (1992, 2, 1.1), "nucl-th": (1992, 10, 1.3),
    "nucl-ex": (1994, 12, 1.5), "math-ph": (1996, 9, 1.4), "quant-ph": (1994, 12, 2.2),
    "astro-ph": (1992, 4, 1.7), "astro-ph.GA": (2009, 1, 1.2), "astro-ph.CO": (2009, 1, 1.1),
    "astro-ph.HE": (2009, 1, 1.2), "astro-ph.SR": (2009, 1, 1.1), "astro-ph.EP": (2009, 1, 1.3),
    "astro-ph.IM": (2009, 1, 1.4), "cond-mat": (1992, 4, 1.9), "math": (1992, 2, 2.4),
    "physics": (1996, 10, 2.4), "nlin": (2000, 1, 1.1), "q-bio": (2003, 9, 1.7),
    "cs": (1998, 1, 5.0), "stat": (2007, 4, 2.3), "eess": (2017, 9, 1.5),
    "econ": (2017, 9, 1.5), "q-fin": (2008, 12, 1.3),
}  # fmt: skip

# Where the papers of a category or archive are cross-listed.
CROSS_LISTS: dict[str, tuple[str, ...]] = {
    "hep-th": ("gr-qc", "hep-ph", "math-ph", "math.MP", "math.AG", "cond-mat.str-el", "quant-ph"),
    "hep-ph": ("hep-th", "hep-ex", "astro-ph.CO", "hep-lat", "nucl-th"),
    "gr-qc": ("hep-th", "astro-ph.CO", "astro-ph.HE", "math-ph", "math.MP"),
    "hep-ex": ("hep-ph", "physics.ins-det", "nucl-ex"),
    "hep-lat": ("hep-ph", "hep-th", "nucl-th"),
    "nucl-th": ("nucl-ex", "hep-ph", "astro-ph.HE"),
    "nucl-ex": ("nucl-th", "hep-ex", "physics.ins-det"),
    "math-ph": ("math.MP", "hep-th", "quant-ph"),
    "astro-ph": ("gr-qc", "hep-ph", "astro-ph.IM", "physics.space-ph"),
    "cond-mat": ("cond-mat.stat-mech", "cond-mat.mes-hall", "quant-ph", "physics.optics"),
    "quant-ph": ("cond-mat.mes-hall", "physics.optics", "math-ph", "math.MP", "cs.IT"),
    "math": ("math.CO", "math.PR", "math-ph", "math.MP", "cs.DM"),
    "physics": ("physics.bio-ph", "cond-mat.soft", "physics.soc-ph", "quant-ph", "cs.SI"),
    "nlin": ("math.DS", "physics.bio-ph", "math-ph"),
    "q-bio": ("physics.bio-ph", "q-bio.QM", "stat.AP", "cs.LG"),
    "cs": ("cs.LG", "cs.AI", "cs.CV", "cs.CL", "stat.ML", "math.OC"),
    "stat": ("stat.ME", "math.ST", "stat.TH", "cs.LG"),
    "eess": ("cs.IT", "cs.LG", "cs.SY", "math.IT"),
    "econ": ("stat.ME", "q-fin.EC"),
    "q-fin": ("stat.AP", "math.PR", "econ.GN"),
}

GIVEN_NAMES = (
    "Anna", "Jürgen", "María", "Wei", "Kenji", "Olga", "Pierre", "Elena", "José", "Ravi", "Fatima",
    "Łukasz", "Søren", "Ingrid", "Dmitri", "Chiara", "Zoltán", "Mei", "Yusuf", "Hélène", "Tomás",
    "Priya", "Daniel", "Ayşe", "Björn", "Sofia", "Marek", "Laura", "Hiroshi", "Nadia", "Peter",
    "Yan", "Carlos", "Ewa", "Matteo", "Leila", "David", "Jana", "Minh", "Ruth",
)  # fmt: skip
FAMILY_NAMES = (
    "Müller", "García", "Chen", "Tanaka", "Ivanova", "Dubois", "Rossi", "Sánchez", "Patel",
    "Kowalski", "Nielsen", "Sørensen", "Volkov", "Bianchi", "Szabó", "Wang", "Demir", "Lefèvre",
    "Novák", "Sharma", "Cohen", "Yılmaz", "Lindström", "Moreau", "Nowak", "Okafor", "Suzuki",
    "Haddad", "Smith", "Zhang", "Fernández", "Wójcik", "Ricci", "Rahimi", "Jones", "Dvořák",
    "Nguyen", "Adler", "Kim", "Li", "Hoffmann", "Petrov", "Costa", "Baker", "Singh", "Åkesson",
    "Schröder", "Papadakis", "Núñez", "Horváth", "Marino", "Larsen", "Vega", "Ito", "Brown",
    "Çelik", "Fischer", "Weiss", "Gómez", "Park",
)  # fmt: skip
LICENSES = (
    "http://arxiv.org/licenses/nonexclusive-distrib/1.0/",
    "http://creativecommons.org/licenses/by/4.0/",
    "http://creativecommons.org/licenses/by-nc-sa/4.0/",
)
WITHDRAWALS = (
    "This paper has been withdrawn by the author due to a crucial error in equation {n}.",
    "This submission has been withdrawn by the authors, see section {n} of the new version.",
    "Withdrawn: the argument of section {n} is incomplete.",
    "This paper has been withdrawn; it is superseded by a longer work in {n} parts.",
)
# How authors of old papers spelt names, in `authors` (not in `authors_parsed`).
TEX_ACCENTS = str.maketrans(
    {"ü": r"\"u", "ö": r"\"o", "é": r"\'e", "á": r"\'a", "í": r"\'i", "ø": r"{\o}", "ó": r"\'o"}
)
